#include "tests/emulator/copies.h"

#include <cstring>
#include <memory>
#include <utility>

#include "tests/emulator/machine.h"
#include "tests/emulator/shared_memory.h"

namespace gdn::emulator {
namespace {

// An mbarrier's 64 bits.
struct Counts {
  uint64_t phase : 1;
  uint64_t expected : 15;
  uint64_t pending : 16;
  int64_t bytes : 32;
};
static_assert(sizeof(Counts) == sizeof(uint64_t));

Counts& At(uint32_t barrier) {
  if (barrier % sizeof(Counts) != 0) Fail("a barrier that is not aligned");
  return *reinterpret_cast<Counts*>(SharedPlace(barrier, sizeof(Counts)).data);
}

void Settle(Counts& counts) {
  if (counts.pending != 0 || counts.bytes != 0) return;
  counts.phase ^= 1;
  counts.pending = counts.expected;
}

void Arrive(Counts& counts) {
  if (counts.pending == 0) return FailLater("more arrivals than a barrier expects");
  --counts.pending;
  Settle(counts);
}

// A copy into or out of a block's shared memory, which must not end before.
void LaterIn(Block& block, std::function<void()> copy) {
  ++block.copies;
  Later([&block, copy = std::move(copy)] {
    copy();
    --block.copies;
  });
}

void CheckBulk(const void* global, uint32_t shared, unsigned bytes) {
  if (reinterpret_cast<uintptr_t>(global) % 16 != 0 || shared % 16 != 0 || bytes % 16 != 0) {
    Fail("a bulk copy that is not aligned");
  }
}

}  // namespace

void InitBarrier(uint32_t barrier, unsigned arrivals) {
  Counts& counts = At(barrier);
  counts.phase = 0;
  counts.expected = counts.pending = arrivals;
  counts.bytes = 0;
}

void ArriveAt(uint32_t barrier, unsigned bytes) {
  Counts& counts = At(barrier);
  counts.bytes += bytes;
  Arrive(counts);
}

void ExpectAt(uint32_t barrier, unsigned bytes) { At(barrier).bytes += bytes; }

void WaitAt(uint32_t barrier, unsigned parity) {
  const auto* word = reinterpret_cast<const uint64_t*>(&At(barrier));
  WaitFor({word, 1, parity, "at an mbarrier"});
}

void CopyByThread(uint32_t to, const void* from, unsigned bytes) {
  auto copy = [place = SharedPlace(to, bytes).data, from, bytes] {
    if (from == nullptr) {
      std::memset(place, 0, bytes);
    } else {
      std::memcpy(place, from, bytes);
    }
  };
  if (Chance(2)) {
    copy();
  } else {
    self->copies.back().emplace_back(std::move(copy));
  }
}

void CommitCopies() { self->copies.emplace_back(); }

void WaitForCopies(unsigned kept) {
  auto& groups = self->copies;
  while (groups.size() > kept) {
    for (const auto& copy : groups.front()) copy();
    groups.erase(groups.begin());
  }
  if (groups.empty()) groups.emplace_back();
}

void ArriveAfterCopies(uint32_t barrier) {
  auto groups = std::exchange(self->copies, {{}});
  LaterIn(*self->block, [groups = std::move(groups), counts = &At(barrier)] {
    for (const auto& group : groups) {
      for (const auto& copy : group) copy();
    }
    Arrive(*counts);
  });
}

void CopyCounted(uint32_t to, const void* from, unsigned bytes, uint32_t barrier) {
  CheckBulk(from, to, bytes);
  const Place place = SharedPlace(to, bytes);
  LaterIn(*place.block, [data = place.data, from, bytes, counts = &At(barrier)] {
    std::memcpy(data, from, bytes);
    counts->bytes -= bytes;
    Settle(*counts);
  });
}

void StoreCounted(uint32_t to, float x, uint32_t barrier) {
  const Place place = SharedPlace(to, sizeof(x));
  LaterIn(*place.block, [data = place.data, x, counts = &At(barrier)] {
    std::memcpy(data, &x, sizeof(x));
    counts->bytes -= sizeof(x);
    Settle(*counts);
  });
}

void CopyPanelCounted(uint32_t to, const Tensor& tensor, int column, int row, uint32_t barrier) {
  constexpr int kDim = 64;
  constexpr unsigned kBytes = kDim * kDim * sizeof(uint16_t);
  if (to % 1024 != 0) Fail("a panel that is not aligned");
  const Place place = SharedPlace(to, kBytes);
  LaterIn(*place.block, [data = place.data, tensor, column, row, counts = &At(barrier)] {
    for (uint64_t i = 0; i < kDim; ++i) {
      for (uint64_t j = 0; j < kDim; ++j) {
        const bool inside = row + i < tensor.rows && column + j < tensor.columns;
        const uint16_t x = inside ? tensor.data[(row + i) * tensor.stride + column + j] : 0;
        const uint64_t at = (i * kDim + j) * sizeof(x);
        std::memcpy(data + (at ^ (at >> 7 & 7) << 4), &x, sizeof(x));
      }
    }
    counts->bytes -= kBytes;
    Settle(*counts);
  });
}

void StoreByEngine(void* to, uint32_t from, unsigned bytes) {
  CheckBulk(to, from, bytes);
  if (self->stores.empty()) CommitStores();
  const std::shared_ptr<uint64_t> group = self->stores.back();
  ++*group;
  const Place place = SharedPlace(from, bytes);
  LaterIn(*place.block, [to, data = place.data, bytes, group] {
    std::memcpy(to, data, bytes);
    --*group;
  });
}

void CommitStores() { self->stores.push_back(std::make_shared<uint64_t>(0)); }

void WaitForStores(unsigned pending) {
  auto& groups = self->stores;  // the last is open
  while (groups.size() > pending + 1) {
    const std::shared_ptr<uint64_t> oldest = groups.front();
    while (*oldest != 0) WaitFor({oldest.get(), ~uint64_t{0}, *oldest, "for bulk stores"});
    groups.erase(groups.begin());
  }
}

}  // namespace gdn::emulator
