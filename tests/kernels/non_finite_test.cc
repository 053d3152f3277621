// NaN and infinity in an op's input come out where the equations put them and nowhere else.
#include <gtest/gtest.h>

#include <limits>

#include "tests/testing/cases.h"
#include "tests/testing/compare.h"
#include "tests/testing/implementation.h"

namespace gdn::test {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

class NonFinite : public OpTest {};
GDN_ON_EVERY_IMPLEMENTATION(NonFinite);

// One bad element reaches W tokens of its channel, and the state where it is among the last.
TEST_P(NonFinite, Convolution) {
  for (float bad : {kNan, kInf, -kInf}) {
    for (int64_t token : {0, 14, 62, 63, 64, 67, 70}) {
      SCOPED_TRACE(::testing::Message() << bad << " at token " << token);
      ConvInputs in(51, {{68, 3}, 320, 4}, DType::kBf16);
      in.rows.set_initial_state(true);
      in.x.set(token * in.channels + 9, bad);
      Tensor truth_pool = in.pool;
      Tensor truth(DType::kBf16, in.x.size());
      oracle::CausalConv1dFn(in.Bind<CausalConv1dFnParams>(&truth_pool, &truth, true));
      Tensor pool = in.pool;
      Tensor y(DType::kBf16, in.x.size());
      GetParam()->conv_fn(in.Bind<CausalConv1dFnParams>(&pool, &y, true));
      EXPECT_TRUE(Close(y, truth, {in.rows.tokens(), in.channels}, {2e-2, 2e-2, 1e-2}));
      EXPECT_TRUE(Close(pool, truth_pool, {in.rows.slots(), 3, in.channels}, Within(0)));
    }
  }
}

// A bad element of v poisons its column of the state and of o from there on.
TEST_P(NonFinite, ValueOfTheDeltaRule) {
  for (float bad : {kNan, kInf, -kInf}) {
    SCOPED_TRACE(bad);
    DeltaInputs in(52, {{4, 3}, {1, 3, 64, 96}}, DType::kBf16);
    in.rows.set_initial_state(true);
    in.v.set(2 * in.value_stride() + 96 + 35, bad);
    Tensor truth_pool = in.Pool(5, DType::kFp32);
    Tensor truth(DType::kFp32, in.rows.tokens() * in.value_stride());
    oracle::FusedRecurrentGatedDeltaRule(
        in.Bind<FusedRecurrentGatedDeltaRuleParams>(&truth_pool, &truth, true));
    Tensor pool = in.Pool(5, DType::kFp32);
    Tensor o(DType::kFp32, truth.size());
    GetParam()->recurrent(in.Bind<FusedRecurrentGatedDeltaRuleParams>(&pool, &o, true));
    // Infinite elements of a state may differ in sign and in being NaN: both are poisoned.
    ASSERT_EQ(o.size(), truth.size());
    for (int64_t i = 0; i < o.size(); ++i) {
      ASSERT_EQ(std::isfinite(o[i]), std::isfinite(truth[i]))
          << "o at " << Coordinates(i, in.output_shape());
    }
    for (int64_t i = 0; i < pool.size(); ++i) {
      ASSERT_EQ(std::isfinite(pool[i]), std::isfinite(truth_pool[i]))
          << "state at " << Coordinates(i, in.pool_shape());
    }
  }
}

TEST_P(NonFinite, Norms) {
  for (float bad : {kNan, -kNan}) {
    SCOPED_TRACE(bad);
    Rng rng(53);
    const Shape shape = {3, 2, 96};
    Tensor x = Tensor::Normal(rng, DType::kBf16, 3 * 2 * 96);
    x.set(96 + 17, bad);
    Tensor y(DType::kBf16, x.size());
    L2NormParams p = {3, 2, 96, DType::kBf16, DType::kBf16, x.data(), 192, y.data(), 192, 1e-6f};
    GetParam()->l2norm(p);
    Tensor truth(DType::kBf16, x.size());
    p.y = truth.data();
    oracle::L2Norm(p);
    EXPECT_TRUE(Close(y, truth, shape, RoundingOf(DType::kBf16)));

    const Tensor z = Tensor::Normal(rng, DType::kBf16, x.size());
    const Tensor weight = Tensor::Normal(rng, DType::kFp32, 96);
    RmsNormGatedParams n = {3,        2,   96,       DType::kBf16, DType::kBf16, Gate::kSilu, 1e-6f,
                            x.data(), 192, z.data(), 192,          weight.f32(), y.data(),    192};
    GetParam()->rmsnorm_gated(n);
    n.y = truth.data();
    oracle::RmsNormGated(n);
    EXPECT_TRUE(Close(y, truth, shape, RoundingOf(DType::kBf16)));
  }
}

}  // namespace
}  // namespace gdn::test
