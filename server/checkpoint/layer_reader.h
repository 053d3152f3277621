// Reads a layer's tensors from disk into the layout that the backends take.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/weights.h"
#include "server/checkpoint/gdn_tensors.h"

namespace gdn {

// `rows` rows of a tensor that become rows of in_proj.
struct RowRun {
  TensorRole role;
  int64_t from;  // first row of the tensor
  int64_t to;    // first row of in_proj
  int64_t rows;
};

// How the rows q | k | v | z | b | a of in_proj come from the tensors on disk.
std::vector<RowRun> InProjRuns(const Geometry& g, bool interleaved);

class LayerReader {
 public:
  // The layer with matrices in `io` and vectors in fp32, valid until the next call: one buffer
  // serves all layers. Errors (FAILED_PRECONDITION) name file and tensor: short reads, and values
  // that are not finite in the type they are read to.
  absl::StatusOr<LayerWeights> Read(const Geometry& g, const LayerTensors& layer, DType io);

 private:
  struct alignas(64) Line {
    std::byte bytes[64];
  };

  void Reserve(size_t bytes);
  std::byte* Take(size_t bytes);
  absl::Status ReadWhole(const std::optional<TensorSource>& source, DType to, TensorView* out);
  absl::Status ReadInProj(const Geometry& g, const LayerTensors& layer, DType to, TensorView* out);
  absl::Status ReadRows(const TensorSource& source, int64_t row, int64_t rows, DType to,
                        std::byte* out);

  std::unique_ptr<Line[]> lines_;
  size_t capacity_ = 0;  // in lines
  size_t taken_ = 0;
  std::vector<std::byte> raw_;  // a piece of a tensor as it is on disk
};

}  // namespace gdn
