// The gated delta rule, recurrent and chunked, against the recurrent oracle on the same rounded
// inputs.
#include <gtest/gtest.h>

#include "tests/testing/cases.h"
#include "tests/testing/compare.h"
#include "tests/testing/implementation.h"

namespace gdn::test {
namespace {

struct Mode {
  DType io = DType::kBf16;
  DType state = DType::kFp32;
  bool qk_l2norm = false;
  bool pool = false;     // states are read and kept
  bool initial = false;  // rows have one
};

struct Result {
  Tensor o, pool;
};

template <typename Params>
Result RunRule(void (*rule)(const Params&), DeltaInputs& in, const Mode& s, DType o_type,
               DType state) {
  in.rows.set_initial_state(s.initial);
  Result r = {Tensor(o_type, in.rows.tokens() * in.value_stride(), 99.0f), in.Pool(5, s.state)};
  if (state != s.state) r.pool = ConvInputs::Rounded(r.pool);
  rule(in.Bind<Params>(s.pool ? &r.pool : nullptr, &r.o, s.qk_l2norm));
  return r;
}

// Runs `rule` on all shapes and compares output and, with a pool, the whole pool: the slots of
// nobody must be as they were.
template <typename Params>
void Check(void (*rule)(const Params&), const Mode& s, Tolerance output, Tolerance state) {
  uint64_t seed = 100;
  for (const DeltaShape& shape : DeltaShapes()) {
    SCOPED_TRACE(::testing::Message() << shape << ", seed " << ++seed);
    DeltaInputs in(seed, shape, s.io);
    const Result truth =
        RunRule(oracle::FusedRecurrentGatedDeltaRule, in, s, DType::kFp32, DType::kFp32);
    const Result result = RunRule(rule, in, s, s.io, s.state);
    EXPECT_TRUE(Close(result.o, truth.o, in.output_shape(), output));
    if (!s.pool) continue;
    EXPECT_TRUE(Close(result.pool, truth.pool, in.pool_shape(), state));
  }
}

class DeltaRule : public OpTest {};
GDN_ON_EVERY_IMPLEMENTATION(DeltaRule);

TEST_P(DeltaRule, RecurrentWithoutState) {
  Check(GetParam()->recurrent, {}, Within(1e-2), Within(0));
}

TEST_P(DeltaRule, RecurrentWithL2Norm) {
  Check(GetParam()->recurrent, {.qk_l2norm = true}, Within(1e-3), Within(0));
}

TEST_P(DeltaRule, RecurrentFinalState) {
  Check(GetParam()->recurrent, {.qk_l2norm = true, .pool = true}, Within(1e-2), {1e-3, 1e-3, 1e-3});
}

TEST_P(DeltaRule, RecurrentInitialState) {
  Check(GetParam()->recurrent, {.qk_l2norm = true, .pool = true, .initial = true}, Within(1e-2),
        {1e-3, 1e-3, 1e-3});
}

TEST_P(DeltaRule, ChunkWithoutState) { Check(GetParam()->chunk, {}, Within(2e-2), Within(0)); }

TEST_P(DeltaRule, ChunkWithL2Norm) {
  Check(GetParam()->chunk, {.qk_l2norm = true}, Within(2e-2), Within(0));
}

TEST_P(DeltaRule, ChunkInitialAndFinalState) {
  Check(GetParam()->chunk, {.qk_l2norm = true, .pool = true, .initial = true}, Within(2e-2),
        Within(2e-2));
}

TEST_P(DeltaRule, ChunkAgreesWithRecurrent) {
  const Mode s = {.qk_l2norm = true, .pool = true, .initial = true};
  uint64_t seed = 200;
  for (const DeltaShape& shape : DeltaShapes()) {
    SCOPED_TRACE(::testing::Message() << shape << ", seed " << ++seed);
    DeltaInputs in(seed, shape, s.io);
    const Result recurrent = RunRule(GetParam()->recurrent, in, s, s.io, s.state);
    const Result chunk = RunRule(GetParam()->chunk, in, s, s.io, s.state);
    EXPECT_TRUE(Close(chunk.o, recurrent.o, in.output_shape(), Within(2e-2)));
    EXPECT_TRUE(Close(chunk.pool, recurrent.pool, in.pool_shape(), Within(2e-2)));
  }
}

TEST_P(DeltaRule, Fp32) {
  const Mode s = {.io = DType::kFp32, .qk_l2norm = true, .pool = true, .initial = true};
  Check(GetParam()->recurrent, s, {1e-4, 1e-5, 1e-5}, {1e-4, 1e-5, 1e-5});
  Check(GetParam()->chunk, s, {1e-4, 1e-5, 1e-5}, {1e-4, 1e-5, 1e-5});
}

TEST_P(DeltaRule, Fp16) {
  const Mode s = {.io = DType::kFp16, .qk_l2norm = true, .pool = true, .initial = true};
  Check(GetParam()->recurrent, s, Within(2e-3), {1e-4, 1e-4, 1e-4});
  Check(GetParam()->chunk, s, Within(5e-3), Within(5e-3));
}

// A state kept in bf16 is computed in fp32 and rounded once, when it is stored.
TEST_P(DeltaRule, Bf16State) {
  const Mode s = {.state = DType::kBf16, .qk_l2norm = true, .pool = true, .initial = true};
  Check(GetParam()->recurrent, s, Within(1e-2), RoundingOf(DType::kBf16));
  Check(GetParam()->chunk, s, Within(2e-2), Within(2e-2));
}

TEST_P(DeltaRule, AbsentGateIsZeroAndAbsentBetaIsOneForEveryValueHead) {
  for (const DeltaShape& shape : DeltaShapes()) {
    SCOPED_TRACE(::testing::Message() << shape);
    DeltaInputs in(7, shape, DType::kFp32);
    const int64_t per_head = in.rows.tokens() * in.heads.value_heads;
    in.g = Tensor(DType::kFp32, per_head, 0.0f);
    in.beta = Tensor(DType::kFp32, per_head, 1.0f);
    Tensor truth(DType::kFp32, in.rows.tokens() * in.value_stride());
    oracle::FusedRecurrentGatedDeltaRule(
        in.Bind<FusedRecurrentGatedDeltaRuleParams>(nullptr, &truth, true));
    Tensor o = truth;
    auto recurrent = in.Bind<FusedRecurrentGatedDeltaRuleParams>(nullptr, &o, true);
    recurrent.g = recurrent.beta = nullptr;
    GetParam()->recurrent(recurrent);
    EXPECT_TRUE(Close(o, truth, in.output_shape(), {1e-4, 1e-5, 1e-5}));
    auto chunk = in.Bind<ChunkGatedDeltaRuleParams>(nullptr, &o, true);
    chunk.g = chunk.beta = nullptr;
    GetParam()->chunk(chunk);
    EXPECT_TRUE(Close(o, truth, in.output_shape(), {1e-4, 1e-5, 1e-5}));
  }
}

// q, k, v and o may be columns of wider rows, as they are behind the convolution.
TEST_P(DeltaRule, StridedOperands) {
  DeltaInputs in(8, {{70, 3}, {1, 3, 64, 96}}, DType::kBf16);
  const int64_t width = 2 * in.key_stride() + in.value_stride();
  Tensor truth(DType::kBf16, in.rows.tokens() * in.value_stride());
  oracle::FusedRecurrentGatedDeltaRule(
      in.Bind<FusedRecurrentGatedDeltaRuleParams>(nullptr, &truth, true));
  const Tensor packed = in.Packed(width);
  Tensor o(DType::kBf16, in.rows.tokens() * width, 3.0f);
  const auto* base = static_cast<const Bf16*>(packed.data());
  auto p = in.Bind<ChunkGatedDeltaRuleParams>(nullptr, &o, true);
  p.q = base;
  p.k = base + in.key_stride();
  p.v = base + 2 * in.key_stride();
  p.q_stride = p.k_stride = p.v_stride = p.o_stride = width;
  GetParam()->chunk(p);
  for (int64_t t = 0; t < in.rows.tokens(); ++t) {
    EXPECT_TRUE(Close(o.floats(t * width, in.value_stride()),
                      truth.floats(t * in.value_stride(), in.value_stride()),
                      {in.heads.value_heads, in.heads.value_dim}, Within(2e-2)));
    EXPECT_EQ(o[t * width + in.value_stride()], 3.0f) << "written past the row of token " << t;
  }
}

}  // namespace
}  // namespace gdn::test
