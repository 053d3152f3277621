// The pieces that a step's first kernel fetches, in pinned memory.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/cuda/ops/fetch.h"

namespace gdn::cuda {

class FetchList {
 public:
  FetchList() = default;
  // `pieces` are empty.
  explicit FetchList(std::span<FetchPiece> pieces) : pieces_(pieces) {}

  const FetchPiece* pieces() const { return pieces_.data(); }

  // Empties the list, which has room for `most` pieces from then on.
  void Clear(size_t most) {
    for (FetchPiece& piece : pieces_.first(used_)) piece.bytes = 0;
    used_ = 0;
    most_ = std::min(most, pieces_.size());
  }

  // False, and nothing added, where there is no room or the bytes do not lie on 16.
  bool Add(const std::byte* from, std::byte* to, size_t bytes) {
    constexpr size_t kMost = FetchPiece::kMostBytes;
    const auto bits = reinterpret_cast<uintptr_t>(from) | reinterpret_cast<uintptr_t>(to) | bytes;
    if (bits % 16 != 0 || used_ + (bytes + kMost - 1) / kMost > most_) return false;
    for (size_t at = 0; at < bytes; at += kMost) {
      FetchPiece& piece = pieces_[used_++];
      piece.from = from + at;
      piece.to = to + at;
      piece.bytes = std::min(kMost, bytes - at);
    }
    return true;
  }

 private:
  std::span<FetchPiece> pieces_;
  size_t used_ = 0;
  size_t most_ = 0;
};

}  // namespace gdn::cuda
