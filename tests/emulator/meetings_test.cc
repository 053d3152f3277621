// Where lanes, warps and blocks of a cluster meet.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "tests/emulator/runs.h"

namespace gdn::emulator {
namespace {

using ::testing::HasSubstr;

// What thread 0 sees of what all threads write.
bool SumIsRight(bool meet) {
  int sum = 0;
  const std::string failure = RunKernel(1, 96, [&sum, meet] {
    int* shared = DynamicShared<int>();
    shared[threadIdx.x] = 1;
    if (meet) __syncthreads();
    if (threadIdx.x > 0) return;
    for (int i = 0; i < 96; ++i) sum += shared[i];
  });
  return failure.empty() && sum == 96;
}

TEST(Meetings, AMissingBarrierShows) {
  EXPECT_EQ(Misses([] { return SumIsRight(true); }), 0);
  EXPECT_GT(Misses([] { return SumIsRight(false); }), 0);
}

// Two rounds through one place: the second barrier keeps who writes from who still reads.
bool RoundsAreRight(bool meet) {
  int wrong = 0;
  const std::string failure = RunKernel(1, 64, [&wrong, meet] {
    int* shared = DynamicShared<int>();
    for (int round = 0; round < 4; ++round) {
      if (threadIdx.x == 0) *shared = round;
      __syncthreads();
      wrong += *shared != round ? 1 : 0;
      if (meet) __syncthreads();
    }
  });
  return failure.empty() && wrong == 0;
}

TEST(Meetings, ABarrierThatIsMissingBehindAReadShows) {
  EXPECT_EQ(Misses([] { return RoundsAreRight(true); }), 0);
  EXPECT_GT(Misses([] { return RoundsAreRight(false); }), 0);
}

TEST(Meetings, ThreadsThatHaveEndedAreNotWaitedFor) {
  const auto right = [] {
    int count = 0;
    const std::string failure = RunKernel(1, 128, [&count] {
      if (threadIdx.x >= 70) return;
      __syncthreads();
      ++count;
      if (threadIdx.x % 2 == 0) return;
      __syncwarp();
      ++count;
    });
    return failure.empty() && count == 70 + 35;
  };
  EXPECT_EQ(Misses(right), 0);
}

TEST(Meetings, NamedBarriersAreOfTheirOwnThreads) {
  int any[4] = {};
  const auto right = [&any] {
    const std::string failure = RunKernel(1, 128, [&any] {
      const unsigned warp = threadIdx.x / 32;
      const int id = warp < 2 ? 1 : 2;
      int* shared = DynamicShared<int>();
      for (int round = 0; round < 3; ++round) {
        shared[warp] = round;
        cuda::NamedBarrier(id, 64);
        if (shared[warp ^ 1] != round) shared[8] = 0;
        any[warp] = cuda::NamedBarrierOr(id, 64, threadIdx.x == 70) ? 1 : 0;
      }
    });
    return failure.empty() && any[0] == 0 && any[1] == 0 && any[2] == 1 && any[3] == 1;
  };
  EXPECT_EQ(Misses(right), 0);
  EXPECT_THAT(RunKernel(1, 64, [] { cuda::NamedBarrier(1, threadIdx.x < 32 ? 64 : 96); }),
              HasSubstr("different sizes"));
}

TEST(Meetings, Shuffles) {
  int wrong = 0;
  const std::string failure = RunKernel(1, 32, [&wrong] {
    const int lane = static_cast<int>(threadIdx.x);
    const auto expect = [&wrong](int x, int as) { wrong += x != as ? 1 : 0; };
    expect(__shfl_sync(~0u, 10 * lane, 5), 50);
    expect(__shfl_sync(~0u, lane, 5, 8), lane / 8 * 8 + 5);
    expect(__shfl_xor_sync(~0u, lane, 9), lane ^ 9);
    expect(__shfl_up_sync(~0u, lane, 2), lane < 2 ? lane : lane - 2);
    expect(__shfl_up_sync(~0u, lane, 3, 16), lane % 16 < 3 ? lane : lane - 3);
    expect(static_cast<int>(__ballot_sync(~0u, lane % 5 == 0)), 0x42108421);
    expect(__any_sync(~0u, lane == 31), 1);
    expect(__any_sync(~0u, lane == 32), 0);
  });
  EXPECT_EQ(failure, "");
  EXPECT_EQ(wrong, 0);
}

TEST(Meetings, LanesThatMeetForDifferentEndsFail) {
  const std::string failure = RunKernel(1, 32, [] {
    if (threadIdx.x < 16) {
      __syncwarp();
    } else {
      __ballot_sync(~0u, true);
    }
  });
  EXPECT_THAT(failure, HasSubstr("different ends"));
}

// Each block reads what the next one has written.
bool NeighbourIsSeen(bool wait) {
  int wrong = 0;
  const std::string failure = RunKernel(
      8, 64,
      [&wrong, wait] {
        int* shared = DynamicShared<int>();
        const unsigned rank = cuda::ClusterRank();
        if (threadIdx.x == 0) *shared = static_cast<int>(rank);
        if (wait) cuda::ClusterSync();
        const unsigned next = (rank + 1) % cuda::ClusterSize();
        const uint32_t there = cuda::PeerAddress(cuda::SharedAddress(shared), next);
        const int seen = *reinterpret_cast<int*>(SharedPlace(there, sizeof(int)).data);
        wrong += seen != static_cast<int>(next) ? 1 : 0;
        cuda::ClusterArrive();
        cuda::ClusterWait();
      },
      4);
  return failure.empty() && wrong == 0;
}

TEST(Meetings, BlocksOfACluster) {
  EXPECT_EQ(Misses([] { return NeighbourIsSeen(true); }), 0);
  EXPECT_GT(Misses([] { return NeighbourIsSeen(false); }), 0);
}

TEST(Meetings, MemoryOfABlockThatHasEndedFails) {
  const auto right = [] {
    return RunKernel(
               2, 32,
               [] {
                 const uint32_t own = cuda::SharedAddress(DynamicShared<float>());
                 if (cuda::ClusterRank() == 0) return;
                 for (int i = 0; i < 100; ++i) GiveWay();
                 cuda::LoadSharedPiece(cuda::PeerAddress(own, 0));
               },
               2)
        .empty();
  };
  EXPECT_GT(Misses(right), 0);
}

TEST(Meetings, AddressesOutsideSharedMemoryFail) {
  for (const uint32_t address : {uint32_t{64 << 10}, uint32_t{1} << 24, (64u << 10) - 8}) {
    EXPECT_THAT(RunKernel(1, 1, [address] { cuda::LoadSharedPiece(address); }),
                HasSubstr("outside shared memory"))
        << address;
  }
  int local = 0;
  EXPECT_THAT(RunKernel(1, 1, [&local] { cuda::SharedAddress(&local); }), HasSubstr("not shared"));
}

}  // namespace
}  // namespace gdn::emulator
