// Grids in a stream, and what a run shows whose course is drawn at random.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "tests/emulator/residents.h"
#include "tests/emulator/runs.h"

namespace gdn::emulator {
namespace {

using ::testing::HasSubstr;

// The threads of a grid in the order in which they came.
std::vector<unsigned> Order(uint64_t seed) {
  std::vector<unsigned> order;
  SetSeed(seed);
  EXPECT_EQ(RunKernel(8, 64, [&] { order.push_back(blockIdx.x * 64 + threadIdx.x); }), "");
  return order;
}

TEST(Grids, TheSameCourseForTheSameSeed) {
  const std::vector<unsigned> order = Order(5);
  EXPECT_EQ(order.size(), 8 * 64u);
  EXPECT_EQ(order, Order(5));
  EXPECT_NE(order, Order(6));
}

TEST(Grids, EveryThreadHasItsPlace) {
  Grid grid;
  grid.size = {2, 3, 4};
  grid.block = {5, 6, 2};
  std::vector<int> seen(grid.blocks() * grid.block.volume());
  grid.kernel = [&] {
    const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    ++seen[block * 60 + thread];
  };
  ASSERT_TRUE(Enqueue(grid));
  EXPECT_EQ(RunAll(), "");
  EXPECT_EQ(seen, std::vector<int>(seen.size(), 1));
}

TEST(Grids, OneAfterTheOther) {
  int x = 1;
  const auto right = [&x] {
    x = 1;
    Enqueue(GridOf(1, 32, [&x] { x *= threadIdx.x == 0 ? 5 : 1; }));
    Enqueue(GridOf(1, 32, [&x] { x += threadIdx.x == 0 ? 2 : 0; }));
    return RunAll().empty() && x == 7;
  };
  EXPECT_EQ(Misses(right), 0);
}

enum class Before { kNothing, kItsFlag, kItsEnd };

// Whether a grid that may begin before the one ahead has ended sees what that one wrote.
bool SeesData(Before wait) {
  unsigned flag = 0;
  int data = 0;
  int seen = -1;
  Enqueue(GridOf(2, 64, [&] {
    cuda::GridDependencyLaunch();
    __syncthreads();
    if (blockIdx.x > 0 || threadIdx.x > 0) return;
    data = 3;
    cuda::AddRelease(&flag, 1);
  }));
  Grid next = GridOf(1, 1, [&, wait] {
    while (wait == Before::kItsFlag && cuda::LoadAcquire(&flag) == 0) continue;
    if (wait == Before::kItsEnd) cuda::GridDependencyWait();
    seen = data;
  });
  next.dependent = true;
  Enqueue(next);
  EXPECT_EQ(RunAll(), "");
  return seen == 3;
}

TEST(Grids, AGridThatBeginsEarlyWaitsForWhatItReads) {
  EXPECT_GT(Misses([] { return SeesData(Before::kNothing); }), 0);
  EXPECT_EQ(Misses([] { return SeesData(Before::kItsFlag); }), 0);
  EXPECT_EQ(Misses([] { return SeesData(Before::kItsEnd); }), 0);
}

// The blocks of a grid wait for one another, which they must not unless all fit at a time.
std::string Gather(unsigned blocks) {
  uint64_t come = 0;
  return RunKernel(blocks, 1024, [&come, blocks] {
    if (threadIdx.x == 0) ++come;
    while (come < blocks) WaitFor({&come, ~uint64_t{0}, come, "for the other blocks"});
  });
}

TEST(Grids, BlocksBeyondTheRoomBeginOnceOthersHaveEnded) {
  EXPECT_EQ(Gather(2 * kProcessors), "");
  EXPECT_THAT(Gather(2 * kProcessors + 1), HasSubstr("32 lanes for the other blocks"));
}

TEST(Grids, WhatNoDeviceTakesIsRefused) {
  const auto kernel = [] {};
  Grid grid = GridOf(1, 1024, kernel);
  EXPECT_TRUE(Enqueue(grid));
  grid.block = {1, 4, 65};
  EXPECT_FALSE(Enqueue(grid)) << "blocks are at most 64 deep";
  EXPECT_FALSE(Enqueue(GridOf(1, 1025, kernel)));
  EXPECT_FALSE(Enqueue(GridOf(0, 32, kernel)));
  EXPECT_FALSE(Enqueue(GridOf(3, 32, kernel, 2))) << "a cluster that is not whole";
  grid = GridOf(1, 32, kernel);
  grid.size.y = 1 << 16;
  EXPECT_FALSE(Enqueue(grid));
  grid = GridOf(1, 32, kernel);
  grid.dynamic_bytes = kSharedBytes + 1;
  EXPECT_FALSE(Enqueue(grid));
  EXPECT_EQ(RunAll(), "");
}

TEST(Grids, AFailureNamesWhoWaitsWhere) {
  const std::string failure = RunKernel(2, 96, [] {
    if (blockIdx.x == 1 && threadIdx.x / 32 != 1) cuda::NamedBarrier(3, 96);
  });
  EXPECT_THAT(failure, HasSubstr("kernel block 1,0,0 warp 0: 32 lanes at a barrier of the block"));
  EXPECT_THAT(failure, HasSubstr("kernel block 1,0,0 warp 2: 32 lanes at a barrier of the block"));
  EXPECT_THAT(failure, ::testing::Not(HasSubstr("block 0,0,0")));
  EXPECT_THAT(failure, ::testing::Not(HasSubstr("warp 1")));
  EXPECT_EQ(RunKernel(1, 32, [] {}), "") << "the next run is another";
}

}  // namespace
}  // namespace gdn::emulator
