// Copies beside the threads' own loads and stores, and the barriers that count them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "tests/emulator/runs.h"

namespace gdn::emulator {
namespace {

using ::testing::HasSubstr;

constexpr int kFloats = 64;

struct alignas(16) Floats {
  float x[kFloats];
};

Floats Numbers() {
  Floats f;
  std::iota(std::begin(f.x), std::end(f.x), 1.0f);
  return f;
}

bool AreNumbers(const float* x) {
  const Floats numbers = Numbers();
  return std::equal(x, x + kFloats, numbers.x);
}

// Shared memory of most kernels below.
struct Shared {
  Floats data;
  uint64_t barrier;
};
uint32_t Data() { return cuda::SharedAddress(&DynamicShared<Shared>()->data); }
uint32_t Barrier() { return cuda::SharedAddress(&DynamicShared<Shared>()->barrier); }
float* Copied() { return DynamicShared<Shared>()->data.x; }

void InitBarrier(unsigned arrivals) {
  if (threadIdx.x == 0) cuda::BarrierInit(Barrier(), arrivals);
  cuda::ClusterSync();
}

// Whether all threads see what the copy engine brings.
bool BulkIsSeen(bool wait) {
  const Floats from = Numbers();
  int seen = 0;
  const std::string failure = RunKernel(1, 64, [&, wait] {
    InitBarrier(1);
    if (threadIdx.x == 0) {
      cuda::BarrierArriveExpect(Barrier(), sizeof(Floats));
      cuda::CopyBulk(Data(), &from, sizeof(Floats), Barrier());
    }
    if (wait) cuda::BarrierWait(Barrier(), 0);
    seen += AreNumbers(Copied()) ? 1 : 0;
    cuda::BarrierWait(Barrier(), 0);
  });
  return failure.empty() && seen == 64;
}

TEST(Copies, ABulkCopyIsThereOnceItsBarrierSaysSo) {
  EXPECT_EQ(Misses([] { return BulkIsSeen(true); }), 0);
  EXPECT_GT(Misses([] { return BulkIsSeen(false); }), 0);
}

TEST(Copies, BytesMayBeExpectedBeforeTheArrival) {
  const Floats from = Numbers();
  const auto right = [&from] {
    bool seen = false;
    const std::string failure = RunKernel(1, 1, [&] {
      InitBarrier(1);
      cuda::BarrierExpect(Barrier(), sizeof(Floats));
      cuda::CopyBulk(Data(), &from, sizeof(Floats), Barrier());
      cuda::BarrierArrive(Barrier());
      cuda::BarrierWait(Barrier(), 0);
      seen = AreNumbers(Copied());
    });
    return failure.empty() && seen;
  };
  EXPECT_EQ(Misses(right), 0);
}

TEST(Copies, ABulkCopyThatNobodyWaitsForOutlivesItsBlock) {
  const Floats from = Numbers();
  const auto right = [&from] {
    return RunKernel(1, 1,
                     [&from] {
                       InitBarrier(1);
                       cuda::BarrierArriveExpect(Barrier(), sizeof(Floats));
                       cuda::CopyBulk(Data(), &from, sizeof(Floats), Barrier());
                     })
        .empty();
  };
  EXPECT_GT(Misses(right), 0);
}

TEST(Copies, OfNoFittingSizeOrPlaceFail) {
  Floats from = Numbers();
  EXPECT_THAT(RunKernel(1, 1, [&] { cuda::CopyBulk(Data(), from.x + 1, 16, Barrier()); }),
              HasSubstr("not aligned"));
  EXPECT_THAT(RunKernel(1, 1, [&] { cuda::CopyBulk(Data(), from.x, 20, Barrier()); }),
              HasSubstr("not aligned"));
  EXPECT_THAT(RunKernel(1, 1, [&] { cuda::StoreBulk(from.x, Data() + 8, 16); }),
              HasSubstr("not aligned"));
  EXPECT_THAT(RunKernel(1, 1, [&] { cuda::CopyBulk((64 << 10) - 16, from.x, 32, Barrier()); }),
              HasSubstr("outside shared memory"));
}

enum class Until { kNothing, kRead };

// Whether a store out of shared memory brings what was there when it was asked for.
bool StoreIsRight(Until wait) {
  Floats to = {};
  const std::string failure = RunKernel(1, 1, [&to, wait] {
    DynamicShared<Shared>()->data = Numbers();
    cuda::StoreBulk(&to, Data(), sizeof(to));
    cuda::StoreBulkCommit();
    if (wait == Until::kRead) cuda::StoreBulkWaitRead();
    Copied()[5] = 0;
    cuda::StoreBulkWait();
  });
  return failure.empty() && AreNumbers(to.x);
}

TEST(Copies, MemoryIsOverwrittenOnceItsStoreHasReadIt) {
  EXPECT_EQ(Misses([] { return StoreIsRight(Until::kRead); }), 0);
  EXPECT_GT(Misses([] { return StoreIsRight(Until::kNothing); }), 0);
}

// Of two groups of a thread's own copies, the first is waited for, or nothing is.
bool GroupIsThere(bool wait) {
  const Floats from = Numbers();
  bool there = false;
  bool zeros = false;
  const std::string failure = RunKernel(1, 1, [&, wait] {
    for (unsigned i = 0; i < kFloats; i += 4) cuda::CopyAsync16(Data() + 4 * i, from.x + i, true);
    cuda::CopyAsyncCommit();
    cuda::CopyAsyncFloat(Data() + sizeof(Floats), nullptr, false);
    cuda::CopyAsyncCommit();
    if (wait) cuda::CopyAsyncWait<1>();
    there = AreNumbers(Copied());
    cuda::CopyAsyncWait<0>();
    zeros = *reinterpret_cast<float*>(&DynamicShared<Shared>()->barrier) == 0.0f;
  });
  return failure.empty() && there && zeros;
}

TEST(Copies, OfAThreadAreThereOnceTheirGroupWasWaitedFor) {
  EXPECT_EQ(Misses([] { return GroupIsThere(true); }), 0);
  EXPECT_GT(Misses([] { return GroupIsThere(false); }), 0);
}

TEST(Copies, OfAThreadArriveAtABarrier) {
  const Floats from = Numbers();
  const auto right = [&from] {
    int seen = 0;
    const std::string failure = RunKernel(1, kFloats, [&] {
      InitBarrier(kFloats);
      cuda::CopyAsyncFloat(Data() + 4 * threadIdx.x, from.x + threadIdx.x, true);
      cuda::CopyAsyncArrive(Barrier());
      cuda::BarrierWait(Barrier(), 0);
      seen += AreNumbers(Copied()) ? 1 : 0;
    });
    return failure.empty() && seen == kFloats;
  };
  EXPECT_EQ(Misses(right), 0);
}

// ---- phases

TEST(Copies, APhaseWaitsForItsArrivalsAndItsBytes) {
  const Floats from = Numbers();
  const auto right = [&from] {
    std::vector<int> order;
    const std::string failure = RunKernel(1, 96, [&] {
      InitBarrier(2);
      if (threadIdx.x == 0) {
        cuda::BarrierArriveExpect(Barrier(), 32);
        cuda::CopyBulk(Data(), &from, 16, Barrier());
        for (int i = 0; i < 10; ++i) GiveWay();
        order.push_back(1);
        cuda::CopyBulk(Data() + 16, &from, 16, Barrier());
      } else if (threadIdx.x == 32) {
        for (int i = 0; i < 10; ++i) GiveWay();
        order.push_back(1);
        cuda::BarrierArrive(Barrier());
      } else if (threadIdx.x == 64) {
        cuda::BarrierWait(Barrier(), 1);  // the phase before the first is over
        cuda::BarrierWait(Barrier(), 0);
        order.push_back(2);
      }
    });
    return failure.empty() && order == std::vector<int>{1, 1, 2};
  };
  EXPECT_EQ(Misses(right), 0);
}

TEST(Copies, MoreArrivalsThanABarrierExpectsFail) {
  const std::string failure = RunKernel(1, 1, [] {
    InitBarrier(1);
    cuda::BarrierArriveExpect(Barrier(), 16);
    cuda::BarrierArrive(Barrier());
  });
  EXPECT_THAT(failure, HasSubstr("more arrivals"));
}

// One lane of warp 0 fills what warp 1 empties, four rounds. Where the lanes of warp 0 do not meet,
// one may come to a wait when the round it waits for, and the next, are long over.
std::string Rounds(bool meet) {
  return RunKernel(1, 64, [meet] {
    InitBarrier(1);
    for (unsigned round = 0; round < 4; ++round) {
      if (threadIdx.x == 32) cuda::BarrierArrive(Barrier());
      cuda::BarrierWait(Barrier(), round % 2);
      if (!meet) continue;
      __syncthreads();
    }
  });
}

TEST(Copies, ALaneThatCanMissARoundHangs) {
  EXPECT_EQ(Misses([] { return Rounds(true).empty(); }), 0);
  EXPECT_GT(Misses([] { return Rounds(false).empty(); }), 0);
  SetSeed(1);
  EXPECT_THAT(RunKernel(1, 32,
                        [] {
                          InitBarrier(1);
                          cuda::BarrierWait(Barrier(), 0);
                        }),
              HasSubstr("32 lanes at an mbarrier"));
}

// ---- clusters

TEST(Copies, ToTheBlocksOfAClusterThatAreNamed) {
  const Floats from = Numbers();
  const auto right = [&from] {
    int seen = 0;
    const std::string failure = RunKernel(
        4, 32,
        [&] {
          InitBarrier(1);
          const unsigned rank = cuda::ClusterRank();
          const bool named = (0b1011 >> rank & 1) != 0;
          if (threadIdx.x == 0 && named) cuda::BarrierArriveExpect(Barrier(), sizeof(Floats));
          if (threadIdx.x == 0 && rank == 1) {
            cuda::CopyBulkToAll(Data(), &from, sizeof(Floats), Barrier(), 0b1011);
          }
          if (named) cuda::BarrierWait(Barrier(), 0);
          if (named && AreNumbers(Copied())) ++seen;
          if (!named && AreNumbers(Copied())) seen = -1000;
          cuda::ClusterSync();
        },
        4);
    return failure.empty() && seen == 3 * 32;
  };
  EXPECT_EQ(Misses(right), 0);
}

TEST(Copies, StoresAndArrivalsAtAPeer) {
  const auto right = [] {
    int seen = 0;
    const std::string failure = RunKernel(
        2, kFloats,
        [&seen] {
          InitBarrier(2);
          const unsigned peer = cuda::ClusterRank() ^ 1;
          const uint32_t there = cuda::PeerAddress(Barrier(), peer);
          if (threadIdx.x == 0) cuda::BarrierArriveExpect(Barrier(), sizeof(Floats));
          cuda::StoreToPeer(cuda::PeerAddress(Data() + 4 * threadIdx.x, peer),
                            static_cast<float>(threadIdx.x + 1), there);
          if (threadIdx.x == 1) cuda::BarrierArrivePeer(there);
          cuda::BarrierWait(Barrier(), 0);
          seen += AreNumbers(Copied()) ? 1 : 0;
          cuda::ClusterSync();
        },
        2);
    return failure.empty() && seen == 2 * kFloats;
  };
  EXPECT_EQ(Misses(right), 0);
}

}  // namespace
}  // namespace gdn::emulator
