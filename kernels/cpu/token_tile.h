// A range of a batch's tokens that is run at once, as the ops take it. Long batches are cut into
// such ranges, so that scratch does not grow with them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/batch.h"
#include "kernels/ops/operands.h"

namespace gdn::cpu {

class TokenTile {
 public:
  // Tokens [begin, end) of the batch. Rows with a fault become padding; rows without tokens here
  // are left out; a row that began in an earlier tile has its state from there.
  void Cut(const Batch& batch, std::span<const RowFault> faults, int64_t begin, int64_t end);

  int64_t begin() const { return begin_; }
  int64_t tokens() const { return offsets_.back(); }
  Rows rows() const {
    return {static_cast<int64_t>(slots_.size()), offsets_.data(), slots_.data(), has_state_.data()};
  }
  // Of the batch, that row i of the tile belongs to.
  int64_t batch_row(int64_t i) const { return batch_rows_[i]; }

 private:
  int64_t begin_ = 0;
  std::vector<int64_t> batch_rows_;
  std::vector<int64_t> offsets_ = {0};
  std::vector<int32_t> slots_;
  std::vector<uint8_t> has_state_;
};

}  // namespace gdn::cpu
