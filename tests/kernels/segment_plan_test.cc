#include "kernels/cuda/prefill/segment_plan.h"

#include <gtest/gtest.h>

namespace gdn::cuda {
namespace {

constexpr int kSms = 132;

constexpr Heads Layer(int key_heads, int value_heads) { return {key_heads, value_heads, 128, 128}; }

Segments Cut(const Heads& heads, int64_t chunks, int sms = kSms) {
  const auto plan = PlanSegments(heads, 1, chunks, sms);
  return plan ? plan->segments : Segments{};
}

void ExpectSound(const Heads& heads, int64_t chunks, int sms) {
  SCOPED_TRACE(::testing::Message() << heads.key_heads << "/" << heads.value_heads << ", " << chunks
                                    << " chunks, " << sms << " SMs");
  const auto plan = PlanSegments(heads, 1, chunks, sms);
  if (!plan) return;
  const Segments& s = plan->segments;
  EXPECT_GE(s.count, kLeastSegments);
  EXPECT_LE(s.count * heads.value_heads, kMaxSegmentHeads);
  EXPECT_GE(s.first_chunks, 1);
  EXPECT_GE(s.chunks, 1);
  EXPECT_LT(s.begin(s.count - 1), chunks);  // the last is not empty,
  EXPECT_GE(s.begin(s.count), chunks);      // nor longer than the others
  // The clusters of the first segment and of the tracks have a place beside one another, as have
  // those of all segments but the first.
  EXPECT_LE(2 * (s.count - 1) * heads.value_heads, sms);
  EXPECT_EQ(plan->chunks.lead_chunks, 0);
  EXPECT_EQ(plan->chunks.chain_clusters, heads.value_heads);
  EXPECT_GE(plan->chunks.beside_blocks, 2);
  EXPECT_EQ(plan->chunks.beside_blocks % 2, 0);
  EXPECT_LE(plan->chunks.beside_blocks + 2 * heads.value_heads, sms);
  EXPECT_GE(plan->chunks.item_heads, 1);
  EXPECT_LE(plan->chunks.item_heads, kMaxItemHeads);
}

TEST(SegmentPlan, IsSoundForEveryRow) {
  for (const int group : {1, 2, 3, 4, 5, 8}) {
    for (const int key_heads : {1, 2, 4, 8, 16, 32}) {
      for (const int sms : {2, 78, 114, 132}) {
        for (int64_t chunks = 1; chunks < 140; ++chunks) {
          ExpectSound(Layer(key_heads, key_heads * group), chunks, sms);
        }
        for (const int64_t chunks : {512, 16384, 1 << 20}) {
          ExpectSound(Layer(key_heads, key_heads * group), chunks, sms);
        }
      }
    }
  }
}

TEST(SegmentPlan, ALongRowOfFewHeadsKeepsAllSmsBusy) {
  EXPECT_EQ(Cut(Layer(2, 8), 512).count, 9);
  EXPECT_EQ(Cut(Layer(4, 16), 512).count, 5);
}

// The row of the ops' tests of segments (chunk_segments_test.cc).
TEST(SegmentPlan, ARowOfTwoHeadsIsCut) { EXPECT_GE(Cut(Layer(1, 2), 64).count, 4); }

// The first segment's chain runs while the others' chunks are prepared.
TEST(SegmentPlan, TheFirstSegmentIsTheLongest) {
  for (const int64_t chunks : {128, 512, 16384}) {
    const Segments s = Cut(Layer(2, 8), chunks);
    EXPECT_GT(s.first_chunks, s.chunks) << chunks;
  }
}

TEST(SegmentPlan, AShortRowIsWhole) {
  EXPECT_EQ(Cut(Layer(2, 8), 1).count, 1);
  EXPECT_EQ(Cut(Layer(2, 8), 16).count, 1);
}

// There the chain leaves too few SMs idle to pay for tracks.
TEST(SegmentPlan, ARowOfManyHeadsIsWhole) {
  for (const int64_t chunks : {16, 128, 512, 2048, 16384}) {
    EXPECT_EQ(Cut(Layer(16, 32), chunks).count, 1) << chunks;
    EXPECT_EQ(Cut(Layer(16, 64), chunks).count, 1) << chunks;
  }
}

TEST(SegmentPlan, RowsOfABatchAreWhole) {
  EXPECT_FALSE(PlanSegments(Layer(2, 8), 2, 512, kSms).has_value());
  EXPECT_FALSE(PlanSegments(Layer(2, 8), 0, 0, kSms).has_value());
}

}  // namespace
}  // namespace gdn::cuda
