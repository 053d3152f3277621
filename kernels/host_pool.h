// One piece of the host's memory that is dear to come by (pinned, so that the device writes and
// reads it by itself), handed out in blocks. Thread-safe.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <mutex>
#include <set>

namespace gdn {

class HostPool {
 public:
  // Blocks come from memory [size], which lives as long as `owner`.
  HostPool(std::shared_ptr<void> owner, std::byte* memory, size_t size);

  // A block of `bytes` at least, beginning at a multiple of 4 KiB from the memory's begin; or null
  // where so much is not free in one place: then other memory has to do.
  std::byte* Take(size_t bytes);
  // Takes a block back, with the `bytes` that were asked for.
  void Return(std::byte* block, size_t bytes);

  size_t bytes_taken() const;

 private:
  // Blocks are of 2^order times the smallest. One that is split leaves two buddies, which become
  // one again once both are free.
  static constexpr size_t kSmallest = 4096;
  static constexpr int kOrders = 32;
  static constexpr size_t SizeOf(int order) { return kSmallest << order; }
  static int OrderOf(size_t bytes);

  void Free(size_t offset, int order);

  const std::shared_ptr<void> owner_;
  std::byte* const memory_;
  mutable std::mutex mutex_;
  std::array<std::set<size_t>, kOrders> free_;  // offsets by order; the lowest is taken first
  size_t taken_ = 0;
};

}  // namespace gdn
