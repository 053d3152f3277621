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

constexpr uint64_t kPanelDim = 64;
constexpr unsigned kPanelBytes = kPanelDim * kPanelDim * sizeof(uint16_t);

// Calls f(element in the tensor or null, place in the panel) for 64 x 64 elements.
template <typename F>
void ForEachOfPanel(const Tensor& tensor, int column, int row, unsigned char* panel, F&& f) {
  for (uint64_t i = 0; i < kPanelDim; ++i) {
    for (uint64_t j = 0; j < kPanelDim; ++j) {
      const bool inside = row + i < tensor.rows && column + j < tensor.columns;
      uint16_t* element = inside ? &tensor.data[(row + i) * tensor.stride + column + j] : nullptr;
      const uint64_t at = (i * kPanelDim + j) * sizeof(uint16_t);
      f(element, panel + (at ^ (at >> 7 & 7) << 4));
    }
  }
}

Place PanelPlace(uint32_t address) {
  if (address % 1024 != 0) Fail("a panel that is not aligned");
  return SharedPlace(address, kPanelBytes);
}

// Has `store` run some time, as one of the running thread's stores.
template <typename F>
void StoreLater(Block& block, F store) {
  if (self->stores.empty()) CommitStores();
  const std::shared_ptr<uint64_t> group = self->stores.back();
  ++*group;
  LaterIn(block, [store = std::move(store), group] {
    store();
    --*group;
  });
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
  const Place place = PanelPlace(to);
  LaterIn(*place.block, [data = place.data, tensor, column, row, counts = &At(barrier)] {
    ForEachOfPanel(tensor, column, row, data, [](const uint16_t* element, unsigned char* in_panel) {
      const uint16_t x = element != nullptr ? *element : 0;
      std::memcpy(in_panel, &x, sizeof(x));
    });
    counts->bytes -= kPanelBytes;
    Settle(*counts);
  });
}

void StoreByEngine(void* to, uint32_t from, unsigned bytes) {
  CheckBulk(to, from, bytes);
  const Place place = SharedPlace(from, bytes);
  StoreLater(*place.block, [to, data = place.data, bytes] { std::memcpy(to, data, bytes); });
}

void StorePanelByEngine(const Tensor& tensor, int column, int row, uint32_t from) {
  const Place place = PanelPlace(from);
  StoreLater(*place.block, [data = place.data, tensor, column, row] {
    ForEachOfPanel(tensor, column, row, data, [](uint16_t* element, const unsigned char* in_panel) {
      if (element != nullptr) std::memcpy(element, in_panel, sizeof(*element));
    });
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
