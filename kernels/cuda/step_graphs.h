// Decode steps captured as graphs: one for each layer, layout and number of rows.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <functional>
#include <map>
#include <tuple>

#include "kernels/cuda/errors.h"
#include "kernels/layout.h"

namespace gdn::cuda {

class StepGraphs {
 public:
  StepGraphs() = default;
  StepGraphs(const StepGraphs&) = delete;
  StepGraphs& operator=(const StepGraphs&) = delete;
  ~StepGraphs();

  // Launches the graph of the step; what it has not seen it captures first from `enqueue`, which
  // puts the step's work on the stream it is given.
  void Launch(int layer, InputLayout layout, int64_t rows,
              const std::function<void(cudaStream_t)>& enqueue, cudaStream_t stream,
              Errors& errors);

  // Captures without launching.
  void Prepare(int layer, InputLayout layout, int64_t rows,
               const std::function<void(cudaStream_t)>& enqueue, cudaStream_t stream,
               Errors& errors);

 private:
  using Key = std::tuple<int, InputLayout, int64_t>;

  std::map<Key, cudaGraphExec_t> graphs_;
};

// The number of rows, at least `rows`, for which there is a graph: the rest is padding.
int64_t GraphRows(int64_t rows);

}  // namespace gdn::cuda
