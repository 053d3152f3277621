// Copy-in: the pieces of a batch's parts, brought together tensor by tensor and checked.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/backend.h"
#include "kernels/batch.h"
#include "kernels/cpu/memory.h"
#include "kernels/layout.h"

namespace gdn::cpu {

// The input of a range of a batch's tokens.
class InputStage {
 public:
  // For up to `capacity` tokens at a time.
  InputStage(const BackendShape& shape, int64_t capacity);

  // Takes tokens [begin, end) of the batch.
  void Load(const Batch& batch, int64_t begin, int64_t end);

  // [end - begin, width] of the tensor of this kind, which the layout has; with room for `capacity`
  // tokens.
  const std::byte* tensor(InputTensor::Kind kind) const;

  // Whether all of the token's input, `token` counting from the range's begin, is finite.
  bool finite(int64_t token) const { return finite_[token] != 0; }

 private:
  void LoadPart(const BatchPart& part, int64_t begin, int64_t end);
  void Check(int64_t begin, int64_t end);

  BackendShape shape_;
  int64_t capacity_;
  Memory memory_;
  std::vector<InputTensor> tensors_;  // of the batch's layout
  std::vector<uint8_t> finite_;
  int64_t begin_ = 0;
};

}  // namespace gdn::cpu
