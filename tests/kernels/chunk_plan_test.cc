#include "kernels/cuda/prefill/chunk_plan.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace gdn::cuda {
namespace {

constexpr int kSms = 132;

constexpr Heads Layer(int key_heads, int value_heads) { return {key_heads, value_heads, 128, 128}; }

// Of rows that are equal.
ChunkPlan Plan(const Heads& heads, int64_t rows, int64_t chunks, int sms) {
  return PlanChunks(heads, {rows, chunks, (chunks + rows - 1) / rows}, sms, Fusing::kWholeRows);
}

ChunkPlan PlanHalves(const Heads& heads, int64_t rows, int64_t chunks, int sms) {
  return PlanChunks(heads, {rows, chunks, (chunks + rows - 1) / rows}, sms, Fusing::kHalves);
}

// One that may not be fused.
ChunkPlan PlanPrepared(const Heads& heads, int64_t rows, int64_t chunks, int sms) {
  return PlanChunks(heads, {rows, chunks, (chunks + rows - 1) / rows}, sms, Fusing::kNone);
}

void ExpectSound(const Heads& heads, int64_t rows, int64_t chunks, int sms) {
  SCOPED_TRACE(::testing::Message() << heads.key_heads << "/" << heads.value_heads << ", " << rows
                                    << " rows, " << chunks << " chunks, " << sms << " SMs");
  const ChunkPlan fused = Plan(heads, rows, chunks, sms);
  EXPECT_LE(fused.fused_blocks, std::min<int64_t>(sms, rows * heads.value_heads));
  EXPECT_FALSE(fused.phases);
  const ChunkPlan halves = PlanHalves(heads, rows, chunks, sms);
  EXPECT_LE(halves.fused_blocks, sms);
  if (halves.phases) {
    EXPECT_GE(halves.fused_blocks / 2 * kPhases, rows * heads.value_heads);
  } else {
    EXPECT_EQ(halves.fused_blocks, fused.fused_blocks);
  }
  const ChunkPlan plan = PlanPrepared(heads, rows, chunks, sms);
  EXPECT_EQ(plan.fused_blocks, 0);
  EXPECT_GE(plan.item_heads, 1);
  EXPECT_LE(plan.item_heads, kMaxItemHeads);
  EXPECT_GE(plan.lead_chunks, 0);
  EXPECT_LE(plan.lead_chunks, chunks);
  if (plan.lead_chunks > 0) {
    EXPECT_GE(plan.lead_blocks, 2);
  }
  EXPECT_LE(plan.lead_blocks, sms);
  EXPECT_EQ(plan.lead_blocks % 2, 0);
  EXPECT_GE(plan.chain_clusters, 1);
  EXPECT_LE(plan.chain_clusters, rows * heads.value_heads);
  EXPECT_EQ(plan.beside_blocks % 2, 0);
  EXPECT_EQ(plan.ring, plan.lead_chunks == 0);
  if (plan.lead_chunks == chunks) return;
  // All of the chains' blocks have a place beside those that prepare, and a chain takes all of a
  // head's rows.
  EXPECT_GE(plan.beside_blocks, 2);
  EXPECT_LE(plan.beside_blocks + 2 * plan.chain_clusters, sms);
  EXPECT_EQ(plan.chain_clusters, heads.value_heads);
}

TEST(ChunkPlan, IsSoundForEveryBatch) {
  for (const int group : {1, 2, 3, 4, 5, 8}) {
    for (const int key_heads : {1, 2, 4, 8, 16, 32}) {
      for (const int64_t rows : {1, 2, 8, 128}) {
        for (const int64_t chunks : {1, 2, 128, 16384, 1 << 20}) {
          for (const int sms : {2, 78, 114, 132}) {
            ExpectSound(Layer(key_heads, key_heads * group), rows, rows * chunks, sms);
          }
        }
      }
    }
  }
}

TEST(ChunkPlan, OneLongRowIsPreparedBesideItsChain) {
  const ChunkPlan plan = PlanPrepared(Layer(16, 32), 1, 128, kSms);
  EXPECT_EQ(plan.beside_blocks, 68);
  EXPECT_EQ(plan.lead_chunks, 0);
  EXPECT_EQ(plan.item_heads, 2);
  EXPECT_TRUE(plan.ring);
}

TEST(ChunkPlan, RowsFollowOneAnotherWhereTheLongestIsHalfOfAll) {
  const ChunkPlan plan = PlanChunks(Layer(16, 32), {8, 131, 64}, kSms, Fusing::kHalves);
  EXPECT_EQ(plan.fused_blocks, 0);
  EXPECT_EQ(plan.lead_chunks, 0);
  EXPECT_EQ(plan.beside_blocks, 68);
  EXPECT_EQ(plan.chain_clusters, 32);
}

TEST(ChunkPlan, OneRowIsTheLongestThoughNotKnown) {
  const ChunkPlan plan = PlanChunks(Layer(4, 8), {.rows = 1, .chunks = 512}, kSms, Fusing::kHalves);
  EXPECT_EQ(plan.lead_chunks, 0);
  EXPECT_EQ(plan.beside_blocks, 116);
}

TEST(ChunkPlan, RowsGoSideBySideWhereEachIsShort) {
  const ChunkPlan plan = PlanPrepared(Layer(16, 32), 16, 64, kSms);
  EXPECT_EQ(plan.beside_blocks, 0);
  EXPECT_EQ(plan.lead_chunks, 64);
}

TEST(ChunkPlan, MoreHeadsThanCanBePreparedBesideTheirChainsNeedALead) {
  const ChunkPlan plan = PlanPrepared(Layer(16, 48), 1, 128, kSms);
  EXPECT_EQ(plan.beside_blocks, 36);
  EXPECT_GT(plan.lead_chunks, 0);
  EXPECT_LT(plan.lead_chunks, 128);
  EXPECT_EQ(plan.item_heads, 2);
}

TEST(ChunkPlan, TheLeadIsTheSameShareOfEveryLength) {
  const ChunkPlan plan = PlanPrepared(Layer(16, 48), 1, 1000, kSms);
  const ChunkPlan longer = PlanPrepared(Layer(16, 48), 1, 16000, kSms);
  EXPECT_GT(plan.lead_chunks, 0);
  EXPECT_NEAR(static_cast<double>(longer.lead_chunks) / 16000,
              static_cast<double>(plan.lead_chunks) / 1000, 0.01);
}

TEST(ChunkPlan, FewHeadsNeedNoLeadAndAreSoonReady) {
  const ChunkPlan plan = PlanPrepared(Layer(2, 8), 1, 128, kSms);
  EXPECT_EQ(plan.lead_chunks, 0);
  EXPECT_EQ(plan.beside_blocks, 116);
  EXPECT_EQ(plan.item_heads, 1);
}

TEST(ChunkPlan, AShortRowIsPreparedAtOnce) {
  EXPECT_EQ(PlanPrepared(Layer(16, 32), 1, 16, kSms).lead_chunks, 16);
}

TEST(ChunkPlan, ClustersTakeShortRowsInTurn) {
  EXPECT_EQ(PlanPrepared(Layer(16, 32), 128, 128, kSms).chain_clusters, kSms / 2);
  EXPECT_EQ(PlanPrepared(Layer(16, 32), 1, 1, kSms).chain_clusters, 32);
  EXPECT_EQ(PlanPrepared(Layer(32, 128), 4, 512, kSms).chain_clusters, 512);
}

TEST(ChunkPlan, RowsOfManyHeadsArePreparedOnAllSms) {
  const ChunkPlan plan = PlanPrepared(Layer(32, 128), 4, 512, kSms);
  EXPECT_EQ(plan.lead_chunks, 512);
  EXPECT_EQ(plan.lead_blocks, kSms);
}

TEST(ChunkPlan, MoreHeadsThanSmsArePreparedOnAllSms) {
  EXPECT_EQ(PlanPrepared(Layer(32, 128), 1, 128, kSms).lead_chunks, 128);
}

TEST(ChunkPlan, ManyShortRowsAreFused) {
  EXPECT_EQ(Plan(Layer(16, 32), 128, 128, kSms).fused_blocks, kSms);
  EXPECT_EQ(Plan(Layer(2, 4), 150, 150, kSms).fused_blocks, kSms);
}

TEST(ChunkPlan, HeadsForAlmostAllSmsAreFused) {
  EXPECT_EQ(Plan(Layer(16, 32), 4, 512, kSms).fused_blocks, 128);
  EXPECT_EQ(Plan(Layer(16, 48), 4, 512, kSms).fused_blocks, kSms);
}

TEST(ChunkPlan, SomewhatMoreHeadsThanSmsGetOnInPhases) {
  const ChunkPlan plan = PlanHalves(Layer(16, 48), 4, 512, kSms);
  EXPECT_TRUE(plan.phases);
  EXPECT_EQ(plan.fused_blocks, 128);
  EXPECT_EQ(PlanHalves(Layer(16, 48), 4, 509, kSms).fused_blocks, 128);
  // Not where two heads a block are as good, nor where a phase would be over before it has begun.
  EXPECT_FALSE(PlanHalves(Layer(16, 64), 4, 512, kSms).phases);
  EXPECT_FALSE(PlanHalves(Layer(16, 48), 4, 32, kSms).phases);
}

TEST(ChunkPlan, FewHeadsOfLongRowsAreNotFused) {
  for (const int64_t chunks : {16, 128, 2048}) {
    EXPECT_EQ(Plan(Layer(16, 32), 1, chunks, kSms).fused_blocks, 0);
    EXPECT_EQ(Plan(Layer(16, 64), 1, chunks, kSms).fused_blocks, 0);
    EXPECT_EQ(Plan(Layer(2, 8), 4, 4 * chunks, kSms).fused_blocks, 0);
  }
}

TEST(ChunkPlan, ARowThatIsMuchLongerThanTheOthersIsNotFused) {
  EXPECT_GT(PlanChunks(Layer(16, 32), {128, 240, 8}, kSms, Fusing::kWholeRows).fused_blocks, 0);
  EXPECT_EQ(PlanChunks(Layer(16, 32), {128, 240, 110}, kSms, Fusing::kHalves).fused_blocks, 0);
}

TEST(ChunkPlan, TheLongestRowNeedNotBeKnown) {
  EXPECT_EQ(PlanChunks(Layer(16, 32), {128, 128}, kSms, Fusing::kHalves).fused_blocks, kSms);
}

}  // namespace
}  // namespace gdn::cuda
