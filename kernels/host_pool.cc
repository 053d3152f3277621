#include "kernels/host_pool.h"

#include <algorithm>
#include <bit>
#include <utility>

namespace gdn {

HostPool::HostPool(std::shared_ptr<void> owner, std::byte* memory, size_t size)
    : owner_(std::move(owner)), memory_(memory) {
  size_t offset = 0;
  for (int order = kOrders - 1; order >= 0; --order) {
    for (; offset + SizeOf(order) <= size; offset += SizeOf(order)) free_[order].insert(offset);
  }
}

int HostPool::OrderOf(size_t bytes) {
  const size_t blocks = (std::max<size_t>(bytes, 1) + kSmallest - 1) / kSmallest;
  return std::bit_width(blocks - 1);
}

std::byte* HostPool::Take(size_t bytes) {
  const int wanted = OrderOf(bytes);
  const std::lock_guard lock(mutex_);
  int order = wanted;
  while (order < kOrders && free_[order].empty()) ++order;
  if (order >= kOrders) return nullptr;
  const size_t offset = *free_[order].begin();
  free_[order].erase(free_[order].begin());
  while (order > wanted) {
    --order;
    free_[order].insert(offset + SizeOf(order));
  }
  taken_ += SizeOf(wanted);
  return memory_ + offset;
}

void HostPool::Return(std::byte* block, size_t bytes) {
  const int order = OrderOf(bytes);
  const std::lock_guard lock(mutex_);
  taken_ -= SizeOf(order);
  Free(static_cast<size_t>(block - memory_), order);
}

void HostPool::Free(size_t offset, int order) {
  while (order + 1 < kOrders && free_[order].erase(offset ^ SizeOf(order)) > 0) {
    offset &= ~SizeOf(order);
    ++order;
  }
  free_[order].insert(offset);
}

size_t HostPool::bytes_taken() const {
  const std::lock_guard lock(mutex_);
  return taken_;
}

}  // namespace gdn
