// Tiles of a tensor that the copy engine brings into panels.
#include <gtest/gtest.h>

#include <vector>

#include "kernels/cuda/device/tensor_map.h"
#include "tests/emulator/runs.h"

namespace gdn::emulator {
namespace {

constexpr int kDim = 64;
constexpr int kColumns = 80;
constexpr int kRows = 70;
constexpr int kStride = 96;

struct alignas(1024) Shared {
  uint16_t panel[kDim * kDim];
  uint64_t barrier;
};
Shared& Own() { return *DynamicShared<Shared>(); }

struct alignas(16) Elements {
  uint16_t x[kRows * kStride];
};

Elements Numbers() {
  Elements elements;
  for (int i = 0; i < kRows * kStride; ++i) elements.x[i] = static_cast<uint16_t>(i + 1);
  return elements;
}

// What is at a row and column of the tensor, zero beyond it.
uint16_t NumberAt(int row, int column) {
  return row < kRows && column < kColumns ? static_cast<uint16_t>(row * kStride + column + 1) : 0;
}

// Whether the panel holds the tile that begins there: 16-byte pieces of row i permuted by i % 8.
bool IsTile(const uint16_t* panel, int row, int column) {
  for (int i = 0; i < kDim; ++i) {
    for (int j = 0; j < kDim; ++j) {
      const int at = i * kDim + (j / 8 ^ i % 8) * 8 + j % 8;
      if (panel[at] != NumberAt(row + i, column + j)) return false;
    }
  }
  return true;
}

bool TileIsThere(int row, int column, bool wait) {
  const Elements numbers = Numbers();
  cuda::TensorMap map;
  if (cuda::MapPanels(numbers.x, kColumns, kRows, kStride, &map) != cudaSuccess) return false;
  int seen = 0;
  const std::string failure = RunKernel(1, 32, [&] {
    const uint32_t barrier = cuda::SharedAddress(&Own().barrier);
    if (threadIdx.x == 0) {
      cuda::BarrierInit(barrier, 1);
      cuda::BarrierArriveExpect(barrier, sizeof(Own().panel));
      cuda::CopyPanel(cuda::SharedAddress(Own().panel), &map, column, row, barrier);
    }
    __syncthreads();
    if (wait) cuda::BarrierWait(barrier, 0);
    seen += IsTile(Own().panel, row, column) ? 1 : 0;
    cuda::BarrierWait(barrier, 0);
  });
  return failure.empty() && seen == 32;
}

TEST(Panels, ATileIsThereOnceItsBarrierSaysSo) {
  EXPECT_EQ(Misses([] { return TileIsThere(3, 8, true); }), 0);
  EXPECT_GT(Misses([] { return TileIsThere(3, 8, false); }), 0);
}

TEST(Panels, BeyondTheTensorAreZeros) {
  EXPECT_EQ(Misses([] { return TileIsThere(16, 64, true); }), 0);
}

// Whether a panel's store reaches the tensor's elements and nothing else of it.
bool PanelIsStored(int row, int column, bool wait) {
  const Elements numbers = Numbers();
  Elements to = {};
  cuda::TensorMap map;
  if (cuda::MapPanels(to.x, kColumns, kRows, kStride, &map) != cudaSuccess) return false;
  const std::string failure = RunKernel(1, 1, [&] {
    for (int i = 0; i < kDim * kDim; ++i) {
      const int j = (i / 8 % 8 ^ i / kDim % 8) * 8 + i % 8;
      Own().panel[i] = NumberAt(row + i / kDim, column + j);
    }
    cuda::StorePanel(&map, column, row, cuda::SharedAddress(Own().panel));
    cuda::StoreBulkCommit();
    if (wait) cuda::StoreBulkWaitRead();
    Own().panel[0] = 0;
    cuda::StoreBulkWait();
  });
  for (int i = 0; i < kRows * kStride; ++i) {
    const int down = i / kStride - row;
    const int right = i % kStride - column;
    const bool stored =
        down >= 0 && down < kDim && right >= 0 && right < kDim && i % kStride < kColumns;
    if (to.x[i] != (stored ? numbers.x[i] : 0)) return false;
  }
  return failure.empty();
}

TEST(Panels, AStoreHasReadItsPanelOnceItWasWaitedFor) {
  EXPECT_EQ(Misses([] { return PanelIsStored(3, 8, true); }), 0);
  EXPECT_GT(Misses([] { return PanelIsStored(3, 8, false); }), 0);
}

TEST(Panels, WhatLiesBeyondTheTensorIsNotStored) {
  EXPECT_EQ(Misses([] { return PanelIsStored(16, 64, true); }), 0);
}

TEST(Panels, WhatIsNotAlignedHasNoMap) {
  const Elements numbers = Numbers();
  cuda::TensorMap map;
  EXPECT_EQ(cuda::MapPanels(numbers.x + 1, kColumns, kRows - 1, kStride, &map),
            cudaErrorInvalidValue);
  EXPECT_EQ(cuda::MapPanels(numbers.x, kColumns, kRows, kStride - 4, &map), cudaErrorInvalidValue);
}

}  // namespace
}  // namespace gdn::emulator
