// The convolution and the gates as one op: the bits of the two, whatever the rows.
#include <gtest/gtest.h>

#include "tests/testing/cases.h"
#include "tests/testing/compare.h"
#include "tests/testing/implementation.h"

namespace gdn::test {
namespace {

// Operands of the gates of so many tokens; b and a are columns of wider rows.
struct GatingInputs {
  GatingInputs(uint64_t seed, int64_t tokens, int heads, DType io) : tokens(tokens), heads(heads) {
    Rng rng(seed);
    packed = Tensor::Normal(rng, io, tokens * stride(), 4.0f);
    a_log = Tensor::Uniform(rng, DType::kFp32, heads, -4.0f, 3.0f);
    dt_bias = Tensor::Normal(rng, DType::kFp32, heads, 2.0f);
  }

  int64_t stride() const { return 2 * heads + 8; }

  FusedGdnGatingParams Bind(Tensor* g, Tensor* beta) const {
    const auto* b = static_cast<const std::byte*>(packed.data());
    return {.tokens = tokens,
            .value_heads = heads,
            .io = packed.type(),
            .a = b + heads * SizeOf(packed.type()),
            .a_stride = stride(),
            .b = b,
            .b_stride = stride(),
            .a_log = a_log.f32(),
            .dt_bias = dt_bias.f32(),
            .g = g->f32(),
            .beta = beta->f32()};
  }

  int64_t tokens;
  int heads;
  Tensor packed, a_log, dt_bias;
};

struct Result {
  Tensor y, pool, g, beta;

  friend bool operator==(const Result&, const Result&) = default;
};

// The two ops, one by one or as one.
Result Compute(const Implementation& impl, const ConvInputs& in, const GatingInputs& gating,
               bool fused) {
  const int64_t gates = gating.tokens * gating.heads;
  Result r = {Tensor(in.x.type(), in.x.size(), 99.0f), in.pool, Tensor(DType::kFp32, gates, 99.0f),
              Tensor(DType::kFp32, gates, 99.0f)};
  const FusedConvGatingParams p = {in.Bind<CausalConv1dFnParams>(&r.pool, &r.y, true),
                                   gating.Bind(&r.g, &r.beta)};
  if (fused) {
    impl.conv_gating(p);
  } else {
    impl.conv_fn(p.conv);
    impl.gating(p.gating);
  }
  return r;
}

class ConvGating : public OpTest {};
GDN_ON_EVERY_IMPLEMENTATION(ConvGating);

TEST_P(ConvGating, HasTheBitsOfItsOps) {
  uint64_t seed = 500;
  for (const ConvShape& shape : ConvShapes()) {
    for (DType io : {DType::kBf16, DType::kFp16, DType::kFp32}) {
      SCOPED_TRACE(::testing::Message() << shape << ", seed " << ++seed);
      ConvInputs in(seed, shape, io);
      in.rows.set_initial_state(true);
      const GatingInputs gating(seed, in.rows.tokens(), seed % 2 == 0 ? 32 : 3, io);
      EXPECT_EQ(Compute(*GetParam(), in, gating, true), Compute(*GetParam(), in, gating, false));
    }
  }
}

TEST_P(ConvGating, AgreesWithTheOracle) {
  ConvInputs in(1, {{70, 0, 129, 1}, 512, 4}, DType::kBf16);
  in.rows.set_initial_state(true);
  const GatingInputs gating(2, in.rows.tokens(), 48, DType::kBf16);
  const Result result = Compute(*GetParam(), in, gating, true);
  const Result truth = Compute(kOracle, in, gating, false);
  EXPECT_TRUE(Close(result.y, truth.y, {in.rows.tokens(), in.channels}, {2e-2, 5e-2, 1e-2}));
  EXPECT_EQ(result.pool, truth.pool);
  EXPECT_TRUE(Close(result.g, truth.g, {in.rows.tokens(), 48}, {1e-5, 1e-30, 1e-5}));
  EXPECT_TRUE(Close(result.beta, truth.beta, {in.rows.tokens(), 48}, {1e-5, 1e-30, 1e-5}));
}

// Without tokens to gate it is the convolution.
TEST_P(ConvGating, WhereTheGatesAreGiven) {
  const ConvInputs in(3, {{70, 3}, 256, 3}, DType::kBf16);
  Tensor y(in.x.type(), in.x.size());
  Tensor truth = y;
  Tensor pool = in.pool;
  Tensor pool_truth = in.pool;
  GetParam()->conv_gating({in.Bind<CausalConv1dFnParams>(&pool, &y, false), {}});
  GetParam()->conv_fn(in.Bind<CausalConv1dFnParams>(&pool_truth, &truth, false));
  EXPECT_EQ(y, truth);
  EXPECT_EQ(pool, pool_truth);
}

// A PAD row amid others: its y is zero, its gates are made, no slot is touched.
TEST_P(ConvGating, PadRows) {
  ConvInputs in(4, {{65, 130, 2}, 256, 4}, DType::kBf16);
  const GatingInputs gating(5, in.rows.tokens(), 8, DType::kBf16);
  const Result whole = Compute(*GetParam(), in, gating, true);
  const int32_t slot = in.rows.slot(1);
  in.rows.slot(1) = -1;
  const Result padded = Compute(*GetParam(), in, gating, true);
  const int64_t begin = in.rows.begin(1) * in.channels;
  const int64_t length = in.rows.length(1) * in.channels;
  EXPECT_TRUE(AllZero(padded.y.floats(begin, length)));
  EXPECT_EQ(padded.y.floats(0, begin), whole.y.floats(0, begin));
  EXPECT_EQ(padded.pool.floats(slot * in.slot_stride(), in.slot_stride()),
            in.pool.floats(slot * in.slot_stride(), in.slot_stride()));
  EXPECT_EQ(padded.g, whole.g);
  EXPECT_EQ(padded.beta, whole.beta);
}

}  // namespace
}  // namespace gdn::test
