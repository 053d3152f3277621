#include "kernels/cpu/token_tile.h"

#include <algorithm>

namespace gdn::cpu {

void TokenTile::Cut(const Batch& batch, std::span<const RowFault> faults, int64_t begin,
                    int64_t end) {
  begin_ = begin;
  batch_rows_.clear();
  offsets_.assign(1, 0);
  slots_.clear();
  has_state_.clear();
  for (int64_t row = 0; row < batch.rows(); ++row) {
    const int64_t first = std::max(begin, batch.offsets[row]);
    const int64_t last = std::min(end, batch.offsets[row + 1]);
    if (first >= last) continue;
    batch_rows_.push_back(row);
    offsets_.push_back(last - begin);
    slots_.push_back(faults[row] == RowFault::kNone ? batch.slots[row] : kPadSlotId);
    has_state_.push_back(first > batch.offsets[row] || batch.has_initial_state[row] != 0);
  }
}

}  // namespace gdn::cpu
