#include "kernels/cpu/gather.h"

#include <algorithm>

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/parallel.h"
#include "kernels/dtype.h"
#include "kernels/pieces.h"
#include "kernels/synthetic.h"

namespace gdn::cpu {
namespace {

constexpr int64_t kPiece = 16;  // tokens that a thread copies at a time

// Elements [first, first + n) of a part's input.
void Synthesize(uint64_t seed, DType type, int64_t first, int64_t n, std::byte* to) {
  for (int64_t i = 0; i < n; ++i) {
    Store(to, type, i, SyntheticValue(seed, static_cast<uint64_t>(first + i)));
  }
}

size_t WidestRow(const BackendShape& shape) {
  const Geometry& g = shape.geometry;
  const size_t projected = std::max(InputRowBytes(g, InputLayout::kQkvZBA, shape.io),
                                    InputRowBytes(g, InputLayout::kQkvZBetaG, shape.io));
  return shape.projections ? std::max(projected, InputRowBytes(g, InputLayout::kHidden, shape.io))
                           : projected;
}

}  // namespace

InputStage::InputStage(const BackendShape& shape, int64_t capacity)
    : shape_(shape),
      capacity_(capacity),
      memory_(WidestRow(shape) * static_cast<size_t>(capacity)),
      finite_(static_cast<size_t>(capacity)) {}

void InputStage::Load(const Batch& batch, int64_t begin, int64_t end) {
  tensors_ = InputTensors(shape_.geometry, batch.layout, shape_.io);
  begin_ = begin;
  ParallelForPieces(end - begin, kPiece, [&](int64_t first, int64_t last) {
    for (const BatchPart& part : batch.parts) {
      const int64_t from = std::max(begin + first, part.first_token);
      const int64_t to = std::min(begin + last, part.first_token + part.tokens);
      if (from < to) LoadPart(part, from, to);
    }
    Check(first, last);
  });
}

// Tokens [begin, end) of the batch, which are the part's.
void InputStage::LoadPart(const BatchPart& part, int64_t begin, int64_t end) {
  std::byte* stage = memory_.data();
  size_t offset = 0;  // of the tensor in the part's bytes
  int64_t element = 0;
  for (const InputTensor& tensor : tensors_) {
    const size_t row = tensor.row_bytes();
    std::byte* to = stage + static_cast<size_t>(begin - begin_) * row;
    const int64_t token = begin - part.first_token;
    if (part.synthetic_seed != 0) {
      Synthesize(part.synthetic_seed, tensor.type,
                 element + (part.tokens_before + token) * tensor.width,
                 (end - begin) * tensor.width, to);
    } else {
      CopyPieces(part.input, offset + static_cast<size_t>(token) * row,
                 static_cast<size_t>(end - begin) * row, to);
    }
    stage += static_cast<size_t>(capacity_) * row;
    offset += static_cast<size_t>(part.tokens) * row;
    element += (part.tokens_before + part.tokens + part.tokens_after) * tensor.width;
  }
}

// Tokens [begin, end) of the range.
void InputStage::Check(int64_t begin, int64_t end) {
  for (int64_t token = begin; token < end; ++token) {
    bool finite = true;
    const std::byte* stage = memory_.data();
    for (const InputTensor& tensor : tensors_) {
      const size_t row = tensor.row_bytes();
      const std::byte* x = stage + static_cast<size_t>(token) * row;
      finite = finite && BestKernels().all_finite(x, tensor.type, tensor.width);
      stage += static_cast<size_t>(capacity_) * row;
    }
    finite_[token] = finite ? 1 : 0;
  }
}

const std::byte* InputStage::tensor(InputTensor::Kind kind) const {
  const std::byte* stage = memory_.data();
  for (const InputTensor& tensor : tensors_) {
    if (tensor.kind == kind) return stage;
    stage += static_cast<size_t>(capacity_) * tensor.row_bytes();
  }
  return nullptr;
}

}  // namespace gdn::cpu
