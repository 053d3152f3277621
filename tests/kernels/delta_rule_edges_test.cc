// Gates, keys and rows at the edges of what a layer sees, in both forms of the delta rule.
#include <gtest/gtest.h>

#include <limits>

#include "tests/testing/cases.h"
#include "tests/testing/compare.h"
#include "tests/testing/implementation.h"
#include "tests/testing/sparse_pool.h"

namespace gdn::test {
namespace {

// Both forms against the recurrent oracle, from random initial states, with the q, k normalised.
void Check(const Implementation& impl, DeltaInputs& in, Tolerance t) {
  in.rows.set_initial_state(true);
  const DType io = in.q.type();
  Tensor truth_pool = in.Pool(5, DType::kFp32);
  Tensor truth(DType::kFp32, in.rows.tokens() * in.value_stride());
  oracle::FusedRecurrentGatedDeltaRule(
      in.Bind<FusedRecurrentGatedDeltaRuleParams>(&truth_pool, &truth, true));

  Tensor pool = in.Pool(5, DType::kFp32);
  Tensor o(io, truth.size());
  impl.recurrent(in.Bind<FusedRecurrentGatedDeltaRuleParams>(&pool, &o, true));
  EXPECT_TRUE(Close(o, truth, in.output_shape(), t)) << "recurrent";
  EXPECT_TRUE(Close(pool, truth_pool, in.pool_shape(), t)) << "recurrent";

  pool = in.Pool(5, DType::kFp32);
  impl.chunk(in.Bind<ChunkGatedDeltaRuleParams>(&pool, &o, true));
  EXPECT_TRUE(Close(o, truth, in.output_shape(), t)) << "chunk";
  EXPECT_TRUE(Close(pool, truth_pool, in.pool_shape(), t)) << "chunk";
}

class DeltaRuleEdges : public OpTest {
 protected:
  static DeltaInputs Inputs(DType io) { return {9, {{129, 65, 3}, {1, 3, 64, 96}}, io}; }

  static void FillGate(DeltaInputs& in, float g) { in.g = Tensor(DType::kFp32, in.g.size(), g); }

  static void FillBeta(DeltaInputs& in, float beta) {
    in.beta = Tensor(DType::kFp32, in.beta.size(), beta);
  }
};
GDN_ON_EVERY_IMPLEMENTATION(DeltaRuleEdges);

constexpr Tolerance kFp32 = {1e-3, 1e-4, 1e-4};

TEST_P(DeltaRuleEdges, GateOfZero) {
  DeltaInputs in = Inputs(DType::kFp32);
  for (float g : {0.0f, -0.0f, -1e-30f, -1e-9f}) {
    SCOPED_TRACE(g);
    FillGate(in, g);
    Check(*GetParam(), in, kFp32);
  }
}

TEST_P(DeltaRuleEdges, GateThatForgetsEverything) {
  DeltaInputs in = Inputs(DType::kFp32);
  for (float g : {-20.0f, -80.0f, -90.0f, -1e4f, -1e30f}) {
    SCOPED_TRACE(g);
    FillGate(in, g);
    Check(*GetParam(), in, kFp32);
  }
}

TEST_P(DeltaRuleEdges, GatesOfEverySizeInOneChunk) {
  for (DType io : {DType::kFp32, DType::kBf16}) {
    DeltaInputs in = Inputs(io);
    Rng rng(10);
    for (int64_t i = 0; i < in.g.size(); ++i) {
      constexpr float kGates[] = {0.0f, -1e-3f, -1.0f, -80.0f, -200.0f};
      in.g.set(i, kGates[rng() % 5]);
    }
    Check(*GetParam(), in, io == DType::kFp32 ? Within(4e-3) : Within(2e-2));
  }
}

TEST_P(DeltaRuleEdges, BetaOfZeroAndOne) {
  for (DType io : {DType::kFp32, DType::kBf16}) {
    DeltaInputs in = Inputs(io);
    for (float beta : {0.0f, 1.0f}) {
      SCOPED_TRACE(beta);
      FillBeta(in, beta);
      Check(*GetParam(), in, io == DType::kFp32 ? kFp32 : Within(2e-2));
    }
  }
}

// With one key, beta = 1 and no decay A is all ones: the worst case of the inverse.
TEST_P(DeltaRuleEdges, RepeatedKeys) {
  for (DType io : {DType::kFp32, DType::kBf16}) {
    DeltaInputs in = Inputs(io);
    for (int64_t i = in.key_stride(); i < in.k.size(); ++i) in.k.set(i, in.k[i % in.key_stride()]);
    Check(*GetParam(), in, io == DType::kFp32 ? kFp32 : Within(2e-2));
    FillBeta(in, 1.0f);
    FillGate(in, 0.0f);
    Check(*GetParam(), in, io == DType::kFp32 ? kFp32 : Within(2e-2));
  }
}

TEST_P(DeltaRuleEdges, KeysOfZero) {
  DeltaInputs in = Inputs(DType::kFp32);
  in.k = Tensor(DType::kFp32, in.k.size(), 0.0f);
  Check(*GetParam(), in, kFp32);
}

TEST_P(DeltaRuleEdges, LengthsAboutAChunk) {
  for (int64_t length : {1, 2, 15, 16, 17, 63, 64, 65, 127, 128, 129, 193}) {
    SCOPED_TRACE(length);
    DeltaInputs in(11, {{length}, {1, 2, 64, 64}}, DType::kFp32);
    Check(*GetParam(), in, kFp32);
  }
}

TEST_P(DeltaRuleEdges, EveryHeadDimensionAndRatio) {
  for (int key_dim : {64, 96, 128, 160, 192, 224, 256}) {
    for (const auto& [key_heads, value_heads] : {std::pair{1, 1}, {2, 6}, {1, 4}}) {
      const Heads heads = {key_heads, value_heads, key_dim, 320 - key_dim};
      DeltaInputs in(12, {{66, 1}, heads}, DType::kFp32);
      SCOPED_TRACE(::testing::Message()
                   << "K " << key_dim << ", heads " << key_heads << "/" << value_heads);
      Check(*GetParam(), in, kFp32);
    }
  }
}

TEST_P(DeltaRuleEdges, RowsWithoutTokensTouchNothing) {
  DeltaInputs in(13, {{0, 70, 0, 1}, {1, 3, 64, 64}}, DType::kFp32);
  for (bool initial : {false, true}) {
    in.rows.set_initial_state(initial);
    const Tensor before = in.Pool(5, DType::kFp32);
    for (bool chunked : {false, true}) {
      Tensor pool = before;
      Tensor o(DType::kFp32, in.rows.tokens() * in.value_stride());
      if (chunked) {
        GetParam()->chunk(in.Bind<ChunkGatedDeltaRuleParams>(&pool, &o, true));
      } else {
        GetParam()->recurrent(in.Bind<FusedRecurrentGatedDeltaRuleParams>(&pool, &o, true));
      }
      for (int64_t row : {0, 2}) {
        const int64_t begin = in.rows.slot(row) * in.state_size();
        EXPECT_EQ(pool.floats(begin, in.state_size()), before.floats(begin, in.state_size()));
      }
      EXPECT_NE(pool, before);
    }
  }
}

TEST_P(DeltaRuleEdges, WithoutAnyTokens) {
  DeltaInputs in(14, {{0, 0}, {1, 2, 64, 64}}, DType::kFp32);
  const Tensor before = in.Pool(5, DType::kFp32);
  Tensor pool = before;
  Tensor o(DType::kFp32, 1, 7.0f);
  GetParam()->recurrent(in.Bind<FusedRecurrentGatedDeltaRuleParams>(&pool, &o, true));
  GetParam()->chunk(in.Bind<ChunkGatedDeltaRuleParams>(&pool, &o, true));
  EXPECT_EQ(pool, before);
  EXPECT_EQ(o[0], 7.0f);
}

// Slots are reused without being cleared: what an earlier tenant left, NaN too, must not show.
TEST_P(DeltaRuleEdges, WithoutInitialStateGarbageInTheSlotIsIgnored) {
  DeltaInputs in(15, {{70, 1, 20}, {1, 3, 64, 64}}, DType::kFp32);
  in.rows.set_initial_state(1, true);  // the others have none
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const Tensor clean = in.Pool(5, DType::kFp32);
  Tensor garbage = clean;
  Tensor zeros = clean;
  for (int64_t row : {0, 2}) {
    const int64_t begin = in.rows.slot(row) * in.state_size();
    for (int64_t i = begin; i < begin + in.state_size(); ++i) {
      garbage.set(i, nan);
      zeros.set(i, 0.0f);
    }
  }
  const Tensor initial = garbage;
  Tensor truth(DType::kFp32, in.rows.tokens() * in.value_stride());
  DeltaInputs all = in;
  all.rows.set_initial_state(true);
  oracle::FusedRecurrentGatedDeltaRule(
      all.Bind<FusedRecurrentGatedDeltaRuleParams>(&zeros, &truth, true));
  Tensor o = truth;
  GetParam()->recurrent(in.Bind<FusedRecurrentGatedDeltaRuleParams>(&garbage, &o, true));
  EXPECT_TRUE(Close(o, truth, in.output_shape(), kFp32));
  EXPECT_TRUE(Close(garbage, zeros, in.pool_shape(), kFp32));
  garbage = initial;
  GetParam()->chunk(in.Bind<ChunkGatedDeltaRuleParams>(&garbage, &o, true));
  EXPECT_TRUE(Close(o, truth, in.output_shape(), kFp32));
  EXPECT_TRUE(Close(garbage, zeros, in.pool_shape(), kFp32));
}

// Several packed rows and more value heads than key heads, with no pool at all.
TEST_P(DeltaRuleEdges, WithoutPoolForSeveralRowsAndGroupedHeads) {
  DeltaInputs in(16, {{65, 2, 30, 1}, {2, 6, 64, 64}}, DType::kFp32);
  in.rows.set_initial_state(true);  // of no effect: there is no pool
  Tensor truth(DType::kFp32, in.rows.tokens() * in.value_stride());
  oracle::FusedRecurrentGatedDeltaRule(
      in.Bind<FusedRecurrentGatedDeltaRuleParams>(nullptr, &truth, true));
  Tensor o = truth;
  GetParam()->recurrent(in.Bind<FusedRecurrentGatedDeltaRuleParams>(nullptr, &o, true));
  EXPECT_TRUE(Close(o, truth, in.output_shape(), kFp32));
  GetParam()->chunk(in.Bind<ChunkGatedDeltaRuleParams>(nullptr, &o, true));
  EXPECT_TRUE(Close(o, truth, in.output_shape(), kFp32));
}

// Slot 5000 of 32 heads of 128 x 128 lies beyond 2^31 elements.
TEST_P(DeltaRuleEdges, SlotsBeyondTwoToTheThirtyOneElements) {
  constexpr int64_t kStride = int64_t{32} * 128 * 128;
  constexpr int32_t kSlots[] = {5000, 4096, 0};
  SparsePool sparse(5001 * kStride * sizeof(float));
  ASSERT_TRUE(sparse.valid());
  DeltaInputs in(17, {{65, 1, 2}, {1, 2, 64, 64}}, DType::kFp32);
  Tensor truth_pool(DType::kFp32, in.rows.slots() * in.state_size());
  Tensor truth(DType::kFp32, in.rows.tokens() * in.value_stride());
  oracle::FusedRecurrentGatedDeltaRule(
      in.Bind<FusedRecurrentGatedDeltaRuleParams>(&truth_pool, &truth, true));
  const DeltaInputs small = in;
  for (int64_t row = 0; row < 3; ++row) in.rows.slot(row) = kSlots[row];
  for (bool chunked : {false, true}) {
    Tensor o(DType::kFp32, truth.size());
    const auto bind = [&](auto p) {
      p.ssm = {sparse.f32(), DType::kFp32, kStride};
      return p;
    };
    if (chunked) {
      GetParam()->chunk(bind(in.Bind<ChunkGatedDeltaRuleParams>(nullptr, &o, true)));
    } else {
      GetParam()->recurrent(bind(in.Bind<FusedRecurrentGatedDeltaRuleParams>(nullptr, &o, true)));
    }
    EXPECT_TRUE(Close(o, truth, in.output_shape(), kFp32));
    for (int64_t row = 0; row < 3; ++row) {
      float* state = sparse.f32() + kSlots[row] * kStride;
      EXPECT_TRUE(
          Close(std::span(state, in.state_size()),
                truth_pool.floats(small.rows.view().slot(row) * in.state_size(), in.state_size()),
                {2, 64, 64}, kFp32));
      std::fill(state, state + in.state_size(), 0.0f);
    }
  }
}

}  // namespace
}  // namespace gdn::test
