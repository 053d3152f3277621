// The chunked delta rule over one long row of few heads, which is cut into segments, against the
// recurrent oracle.
#include <gtest/gtest.h>

#include <limits>

#include "tests/testing/cases.h"
#include "tests/testing/compare.h"
#include "tests/testing/implementation.h"

namespace gdn::test {
namespace {

struct Types {
  DType io;
  DType o;
  DType state;
};
constexpr Types kBf16 = {DType::kBf16, DType::kBf16, DType::kFp32};

class ChunkSegments : public OpTest {
 protected:
  static DeltaInputs Inputs(int64_t tokens, DType io = DType::kBf16) {
    DeltaInputs in(52, {{tokens}, {1, 2, 128, 128}}, io);
    for (int64_t i = 0; i < in.g.size(); ++i) in.g.set(i, 1e-3f * in.g[i]);  // little is forgotten
    in.rows.set_initial_state(true);
    return in;
  }

  static void Check(const Implementation& impl, DeltaInputs& in, const Types& types = kBf16) {
    const Tensor before = in.Pool(5, types.state);
    Tensor truth_pool(DType::kFp32, before.size());
    for (int64_t i = 0; i < before.size(); ++i) truth_pool.set(i, before[i]);
    Tensor truth(DType::kFp32, in.rows.tokens() * in.value_stride());
    oracle::FusedRecurrentGatedDeltaRule(
        in.Bind<FusedRecurrentGatedDeltaRuleParams>(&truth_pool, &truth, true));
    Tensor pool = before;
    Tensor o(types.o, truth.size(), 99.0f);
    impl.chunk(in.Bind<ChunkGatedDeltaRuleParams>(&pool, &o, true));
    const Tolerance t = Within(types.io == DType::kFp16 ? 5e-3 : 2e-2);
    EXPECT_TRUE(Close(o, truth, in.output_shape(), t));
    EXPECT_TRUE(
        Close(pool, truth_pool, in.pool_shape(), types.state == DType::kBf16 ? Within(2e-2) : t));
  }
};
GDN_ON_EVERY_IMPLEMENTATION(ChunkSegments);

TEST_P(ChunkSegments, EndsOfEverySize) {
  for (const int64_t tokens : {4096, 4097, 4159, 4160, 4161}) {
    SCOPED_TRACE(tokens);
    DeltaInputs in = Inputs(tokens);
    Check(*GetParam(), in);
  }
}

TEST_P(ChunkSegments, EveryType) {
  for (const DType io : {DType::kBf16, DType::kFp16}) {
    for (const DType o : {io, DType::kFp32}) {
      for (const DType state : {DType::kFp32, DType::kBf16}) {
        DeltaInputs in = Inputs(4100, io);
        Check(*GetParam(), in, {io, o, state});
      }
    }
  }
}

// Where nothing is forgotten, all that the first segment leaves reaches the last.
TEST_P(ChunkSegments, GatesAndBetasAtTheirEnds) {
  for (const float g : {0.0f, -80.0f}) {
    for (const float beta : {0.0f, 0.01f, 1.0f}) {
      SCOPED_TRACE(::testing::Message() << "g " << g << ", beta " << beta);
      DeltaInputs in = Inputs(4100);
      in.g = Tensor(DType::kFp32, in.g.size(), g);
      in.beta = Tensor(DType::kFp32, in.beta.size(), beta);
      Check(*GetParam(), in);
    }
  }
}

TEST_P(ChunkSegments, RepeatedKeysWithoutDecay) {
  DeltaInputs in = Inputs(4100);
  for (int64_t i = in.key_stride(); i < in.k.size(); ++i) in.k.set(i, in.k[i % in.key_stride()]);
  in.g = Tensor(DType::kFp32, in.g.size(), 0.0f);
  Check(*GetParam(), in);
}

TEST_P(ChunkSegments, WithoutInitialStateTheSlotIsNotLookedAt) {
  DeltaInputs in = Inputs(4100);
  in.rows.set_initial_state(false);
  Tensor truth_pool(DType::kFp32, in.Pool(5, DType::kFp32).size(), 0.0f);
  Tensor pool(DType::kFp32, truth_pool.size(), std::numeric_limits<float>::quiet_NaN());
  Tensor truth(DType::kFp32, in.rows.tokens() * in.value_stride());
  Tensor o(DType::kBf16, truth.size());
  oracle::FusedRecurrentGatedDeltaRule(
      in.Bind<FusedRecurrentGatedDeltaRuleParams>(&truth_pool, &truth, true));
  GetParam()->chunk(in.Bind<ChunkGatedDeltaRuleParams>(&pool, &o, true));
  EXPECT_TRUE(Close(o, truth, in.output_shape(), Within(2e-2)));
  const int64_t state = in.rows.view().slot(0) * in.state_size();
  EXPECT_TRUE(Close(pool.floats(state, in.state_size()), truth_pool.floats(state, in.state_size()),
                    {2, 128, 128}, Within(2e-2)));
}

TEST_P(ChunkSegments, WithoutPool) {
  DeltaInputs in = Inputs(4100);
  Tensor truth(DType::kFp32, in.rows.tokens() * in.value_stride());
  Tensor o(DType::kBf16, truth.size());
  oracle::FusedRecurrentGatedDeltaRule(
      in.Bind<FusedRecurrentGatedDeltaRuleParams>(nullptr, &truth, true));
  GetParam()->chunk(in.Bind<ChunkGatedDeltaRuleParams>(nullptr, &o, true));
  EXPECT_TRUE(Close(o, truth, in.output_shape(), Within(2e-2)));
}

TEST_P(ChunkSegments, TheSameBitsEveryTime) {
  DeltaInputs in = Inputs(4100);
  const Tensor before = in.Pool(5, DType::kFp32);
  Tensor pools[] = {before, before};
  Tensor outputs[] = {Tensor(DType::kBf16, in.rows.tokens() * in.value_stride()),
                      Tensor(DType::kBf16, in.rows.tokens() * in.value_stride())};
  for (int i = 0; i < 2; ++i) {
    GetParam()->chunk(in.Bind<ChunkGatedDeltaRuleParams>(&pools[i], &outputs[i], true));
  }
  EXPECT_EQ(outputs[0], outputs[1]);
  EXPECT_EQ(pools[0], pools[1]);
}

TEST_P(ChunkSegments, PadTouchesNoState) {
  DeltaInputs in = Inputs(4100);
  in.rows.slot(0) = -1;
  const Tensor before = in.Pool(5, DType::kFp32);
  Tensor pool = before;
  Tensor o(DType::kBf16, in.rows.tokens() * in.value_stride(), 99.0f);
  GetParam()->chunk(in.Bind<ChunkGatedDeltaRuleParams>(&pool, &o, true));
  EXPECT_EQ(pool, before);
  for (const float x : o.floats(0, o.size())) ASSERT_EQ(x, 0.0f);
}

}  // namespace
}  // namespace gdn::test
