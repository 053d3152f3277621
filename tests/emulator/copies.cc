#include "tests/emulator/copies.h"

#include <cstring>

#include "tests/emulator/machine.h"

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

Counts& At(uint32_t barrier) { return *static_cast<Counts*>(SharedPlace(barrier, sizeof(Counts))); }

void Settle(Counts& counts) {
  if (counts.pending != 0 || counts.bytes != 0) return;
  counts.phase ^= 1;
  counts.pending = counts.expected;
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
  if (counts.pending == 0) Fail("more arrivals than a barrier expects");
  counts.bytes += bytes;
  --counts.pending;
  Settle(counts);
}

void WaitAt(uint32_t barrier, unsigned parity) {
  const auto* word = static_cast<const uint64_t*>(SharedPlace(barrier, sizeof(uint64_t)));
  WaitFor({word, 1, parity, "at an mbarrier"});
}

void CopyByThread(uint32_t to, const void* from, unsigned bytes) {
  void* place = SharedPlace(to, bytes);
  const auto copy = [place, from, bytes] {
    if (from == nullptr) {
      std::memset(place, 0, bytes);
    } else {
      std::memcpy(place, from, bytes);
    }
  };
  if (Chance(2)) {
    copy();
  } else {
    self->copies.back().push_back(copy);
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
  auto groups = std::move(self->copies);
  self->copies.assign(1, {});
  Later([groups = std::move(groups), counts = &At(barrier)] {
    for (const auto& group : groups) {
      for (const auto& copy : group) copy();
    }
    --counts->pending;
    Settle(*counts);
  });
}

void CopyCounted(uint32_t to, const void* from, unsigned bytes, uint32_t barrier) {
  CheckBulk(from, to, bytes);
  Later([place = SharedPlace(to, bytes), from, bytes, counts = &At(barrier)] {
    std::memcpy(place, from, bytes);
    counts->bytes -= bytes;
    Settle(*counts);
  });
}

void StoreCounted(uint32_t to, float x, uint32_t barrier) {
  Later([place = SharedPlace(to, sizeof(x)), x, counts = &At(barrier)] {
    std::memcpy(place, &x, sizeof(x));
    counts->bytes -= sizeof(x);
    Settle(*counts);
  });
}

void StoreByEngine(void* to, uint32_t from, unsigned bytes) {
  CheckBulk(to, from, bytes);
  if (self->stores.empty()) CommitStores();
  const std::shared_ptr<uint64_t> group = self->stores.back();
  ++*group;
  Later([to, place = SharedPlace(from, bytes), bytes, group] {
    std::memcpy(to, place, bytes);
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
