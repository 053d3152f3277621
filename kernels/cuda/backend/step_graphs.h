// Decode steps captured as graphs: one for each layer, layout, number of rows, way of the bytes and
// set of buffers.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <functional>
#include <map>
#include <tuple>

#include "kernels/cuda/backend/errors.h"
#include "kernels/layout.h"

namespace gdn::cuda {

class StepGraphs {
 public:
  StepGraphs() = default;
  StepGraphs(const StepGraphs&) = delete;
  StepGraphs& operator=(const StepGraphs&) = delete;
  ~StepGraphs();

  struct Key {
    int layer = 0;
    InputLayout layout = InputLayout::kHidden;
    int64_t rows = 0;
    bool by_kernels = false;  // as of StepShape
    int buffers = 0;

    friend bool operator<(const Key& a, const Key& b) {
      return std::tie(a.layer, a.layout, a.rows, a.by_kernels, a.buffers) <
             std::tie(b.layer, b.layout, b.rows, b.by_kernels, b.buffers);
    }
  };

  // Puts the step's work on the stream it is given.
  using Enqueue = std::function<void(cudaStream_t, Errors&)>;

  // Launches the graph of the step; what it has not seen it captures first from `enqueue`. What
  // cannot become a graph, for want of memory say, is enqueued as it is, now and ever after.
  void Launch(const Key& key, const Enqueue& enqueue, cudaStream_t stream, Errors& errors);

  // Captures without launching. The graph, or null where it cannot be had.
  cudaGraphExec_t Prepare(const Key& key, const Enqueue& enqueue, cudaStream_t stream);

 private:
  std::map<Key, cudaGraphExec_t> graphs_;  // null: there is none
};

// The number of rows, at least `rows`, for which there is a graph: the rest is padding.
int64_t GraphRows(int64_t rows);

}  // namespace gdn::cuda
