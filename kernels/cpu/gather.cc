#include "kernels/cpu/gather.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <string_view>

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/parallel.h"
#include "kernels/dtype.h"

namespace gdn::cpu {
namespace {

constexpr int64_t kPiece = 16;  // tokens that a thread copies at a time

// Bytes [offset, offset + size) of the pieces joined.
void CopyBytes(std::span<const std::string_view> pieces, size_t offset, size_t size,
               std::byte* to) {
  for (const std::string_view piece : pieces) {
    if (size == 0) return;
    if (offset >= piece.size()) {
      offset -= piece.size();
      continue;
    }
    const size_t n = std::min(size, piece.size() - offset);
    std::memcpy(to, piece.data() + offset, n);
    to += n;
    size -= n;
    offset = 0;
  }
}

// SplitMix64: the i-th of a sequence of 64 random bits.
uint64_t RandomBits(uint64_t seed, uint64_t i) {
  uint64_t x = seed + (i + 1) * 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

// Elements [first, first + n) of a part's input, uniform over the multiples of 1/128 in [-1, 1):
// exact in every type.
void Synthesize(uint64_t seed, DType type, int64_t first, int64_t n, std::byte* to) {
  for (int64_t i = 0; i < n; ++i) {
    const uint64_t bits = RandomBits(seed, static_cast<uint64_t>(first + i));
    Store(to, type, i, static_cast<float>(static_cast<int>(bits >> 56) - 128) / 128.0f);
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
      Synthesize(part.synthetic_seed, tensor.type, element + token * tensor.width,
                 (end - begin) * tensor.width, to);
    } else {
      CopyBytes(part.input, offset + static_cast<size_t>(token) * row,
                static_cast<size_t>(end - begin) * row, to);
    }
    stage += static_cast<size_t>(capacity_) * row;
    offset += static_cast<size_t>(part.tokens) * row;
    element += part.tokens * tensor.width;
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
