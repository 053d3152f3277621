#include "kernels/cuda/backend/step_block.h"

#include <algorithm>

#include "kernels/cuda/backend/memory.h"
#include "kernels/ops/operands.h"

namespace gdn::cuda {
namespace {

// Places one array after the other.
class Placer {
 public:
  size_t Place(size_t bytes) {
    const size_t at = end_;
    end_ = Aligned(end_ + bytes);
    return at;
  }
  size_t end() const { return end_; }

 private:
  size_t end_ = 0;
};

// Each part in memory of its own begins another piece.
size_t FetchPieces(size_t bytes) {
  constexpr size_t kSpare = 8;
  return std::min(bytes / FetchPiece::kMostBytes + kSpare, kMostFetchPieces);
}

}  // namespace

bool IsSmall(const BackendShape& backend, const StepShape& shape) {
  if (shape.form != RowForm::kSingle) return false;
  size_t row_bytes = 0;
  for (const InputTensor& t : InputTensors(backend.geometry, shape.layout, backend.io)) {
    row_bytes += t.row_bytes();
  }
  const size_t answer_bytes = OutputRowBytes(backend.geometry, shape.layout, backend.io);
  return answer_bytes % 16 == 0 && row_bytes * static_cast<size_t>(shape.rows) <= kMostSmallBytes;
}

StepBlock::StepBlock(const BackendShape& backend, const StepShape& shape) {
  const auto rows = static_cast<size_t>(shape.rows);
  Placer placer;
  faults = placer.Place(rows * sizeof(uint32_t));
  slots = placer.Place(rows * sizeof(int32_t));
  has_state = placer.Place(rows);
  keep = placer.Place(rows);
  if (shape.by_kernels) answers_to = placer.Place(rows * sizeof(void*));
  if (shape.form == RowForm::kAny) {
    offsets = placer.Place((rows + 1) * sizeof(int64_t));
    chunk_offsets = placer.Place((rows + 1) * sizeof(int64_t));
    chunk_indices = placer.Place(static_cast<size_t>(shape.chunks) * 2 * sizeof(int64_t));
    longest_first = placer.Place(rows * 2 * sizeof(int64_t));
  }
  input = placer.end();
  for (const InputTensor& t : InputTensors(backend.geometry, shape.layout, backend.io)) {
    tensor[static_cast<size_t>(t.kind)] =
        placer.Place(t.row_bytes() * static_cast<size_t>(shape.tokens));
  }
  bytes = placer.end();
  // Other layouts have no kernel between the one that fetches and the first that looks at its rows
  // ahead of time.
  const bool fetches = shape.by_kernels && shape.layout == InputLayout::kHidden;
  if (fetches) fetch_pieces = FetchPieces(bytes);
}

size_t MostStepBytes(const BackendShape& backend) {
  size_t most = 0;
  for (const InputLayout layout :
       {InputLayout::kHidden, InputLayout::kQkvZBA, InputLayout::kQkvZBetaG}) {
    const StepShape shape = {layout, RowForm::kAny, backend.max_rows, backend.max_tokens,
                             backend.max_tokens / kChunk + backend.max_rows};
    most = std::max(most, StepBlock(backend, shape).bytes);
  }
  return most;
}

}  // namespace gdn::cuda
