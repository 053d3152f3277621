#include "tests/testing/null_backend.h"

#include <algorithm>
#include <cstring>

namespace gdn {

NullBackend::NullBackend(const BackendShape& shape)
    : shape_(shape),
      answers_(static_cast<size_t>(shape.layers) * static_cast<size_t>(shape.slots) *
               static_cast<size_t>(shape.max_decode_tokens) * shape.answer_row_bytes()) {}

absl::Status NullBackend::LoadLayer(int, const LayerWeights&) { return absl::OkStatus(); }

absl::Status NullBackend::Begin(const Batch& batch) {
  ++batches_;
  rows_ += batch.rows();
  size_t bytes = 0;
  for (const BatchPart& part : batch.parts) {
    for (const std::string_view piece : part.input) bytes += piece.size();
  }
  if (input_.size() < bytes) input_.resize(bytes);
  std::byte* to = input_.data();
  for (const BatchPart& part : batch.parts) {
    for (const std::string_view piece : part.input) {
      std::memcpy(to, piece.data(), piece.size());
      to += piece.size();
    }
  }
  WriteOutput(batch);
  KeepAnswers(batch);
  return absl::OkStatus();
}

absl::Status NullBackend::End(std::span<RowFault> faults) {
  std::fill(faults.begin(), faults.end(), RowFault::kNone);
  return absl::OkStatus();
}

void NullBackend::WriteOutput(const Batch& batch) {
  const size_t row_bytes = OutputRowBytes(shape_.geometry, batch.layout, shape_.io);
  for (const BatchPart& part : batch.parts) {
    if (part.output == nullptr) continue;
    std::memset(part.output, 0, static_cast<size_t>(part.tokens) * row_bytes);
  }
}

void NullBackend::KeepAnswers(const Batch& batch) {
  const size_t row_bytes = OutputRowBytes(shape_.geometry, batch.layout, shape_.io);
  for (int64_t row = 0; row < batch.rows(); ++row) {
    if (!batch.keep_answer[row] || batch.slots[row] < 0) continue;
    std::memset(AnswerAt(batch.layer, batch.slots[row]), 0,
                static_cast<size_t>(batch.length(row)) * row_bytes);
  }
}

std::byte* NullBackend::AnswerAt(int layer, int32_t slot) {
  const size_t index =
      static_cast<size_t>(layer) * static_cast<size_t>(shape_.slots) + static_cast<size_t>(slot);
  return answers_.data() +
         index * static_cast<size_t>(shape_.max_decode_tokens) * shape_.answer_row_bytes();
}

absl::Status NullBackend::ReadAnswer(int layer, int32_t slot, std::span<std::byte> out) {
  std::memcpy(out.data(), AnswerAt(layer, slot), out.size());
  return absl::OkStatus();
}

}  // namespace gdn
