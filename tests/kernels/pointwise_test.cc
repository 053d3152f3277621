// Ops that look at one token at a time: l2norm, gating, gated norm, projection.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/testing/cases.h"
#include "tests/testing/compare.h"
#include "tests/testing/implementation.h"

namespace gdn::test {
namespace {

constexpr DType kTypes[] = {DType::kFp32, DType::kBf16, DType::kFp16};

class L2Norm : public OpTest {};
GDN_ON_EVERY_IMPLEMENTATION(L2Norm);

TEST_P(L2Norm, EveryTypeAndWidth) {
  for (DType x_type : kTypes) {
    for (DType y_type : {x_type, DType::kFp32}) {
      for (int dim : {64, 96, 128, 256}) {
        Rng rng(dim);
        const int64_t width = 3 * dim;
        const int64_t x_stride = width + 32;  // columns of wider rows
        const Tensor x = Tensor::Normal(rng, x_type, 37 * x_stride);
        Tensor y(y_type, 37 * width);
        Tensor truth(DType::kFp32, 37 * width);
        L2NormParams p = {37, 3, dim, x_type, y_type, x.data(), x_stride, y.data(), width, 1e-6f};
        GetParam()->l2norm(p);
        p.y = truth.data();
        p.y_type = DType::kFp32;
        oracle::L2Norm(p);
        EXPECT_TRUE(Close(y, truth, {37, 3, dim}, RoundingOf(y_type)));
      }
    }
  }
}

// A block of threads takes many tokens then.
TEST_P(L2Norm, OneSmallHead) {
  for (int dim : {4, 8, 16}) {
    Rng rng(dim);
    const Tensor x = Tensor::Normal(rng, DType::kBf16, 300 * dim);
    Tensor y(DType::kFp32, x.size());
    Tensor truth(DType::kFp32, x.size());
    L2NormParams p = {300, 1, dim, x.type(), y.type(), x.data(), dim, y.data(), dim, 1e-6f};
    GetParam()->l2norm(p);
    p.y = truth.data();
    oracle::L2Norm(p);
    EXPECT_TRUE(Close(y, truth, {300, 1, dim}, RoundingOf(DType::kFp32)));
  }
}

TEST_P(L2Norm, InPlace) {
  Rng rng(1);
  Tensor x = Tensor::Normal(rng, DType::kBf16, 5 * 256);
  Tensor truth(DType::kFp32, x.size());
  L2NormParams p = {5, 2, 128, DType::kBf16, DType::kFp32, x.data(), 256, truth.data(), 256, 1e-6f};
  oracle::L2Norm(p);
  p.y = x.data();
  p.y_type = DType::kBf16;
  GetParam()->l2norm(p);
  EXPECT_TRUE(Close(x, truth, {5, 2, 128}, RoundingOf(DType::kBf16)));
}

// The epsilon lies under the root: a vector of zeros gives zeros, a tiny one is not blown up.
TEST_P(L2Norm, VectorsOfZeroAndTinyOnes) {
  Tensor x(DType::kFp32, 3 * 64, 0.0f);
  for (int i = 64; i < 128; ++i) x.set(i, 1e-12f);
  for (int i = 128; i < 192; ++i) x.set(i, 1e15f);  // its square does not overflow fp32
  Tensor y(DType::kFp32, x.size(), 9.0f);
  GetParam()->l2norm({.tokens = 3,
                      .heads = 1,
                      .dim = 64,
                      .x = x.data(),
                      .x_stride = 64,
                      .y = y.data(),
                      .y_stride = 64});
  EXPECT_TRUE(AllZero(y.floats(0, 64)));
  EXPECT_NEAR(y[64], 1e-12 / std::sqrt(1e-6), 1e-14);
  EXPECT_NEAR(y[128], 0.125, 1e-6);
}

class Gating : public OpTest {
 protected:
  // g and beta for one head with the given a, b, A_log and no dt_bias.
  std::pair<float, float> Gate(DType io, float a, float b, float a_log) {
    Tensor in_a(io, 1, a);
    Tensor in_b(io, 1, b);
    const float dt_bias = 0.0f;
    std::pair<float, float> out;
    GetParam()->gating({.tokens = 1,
                        .value_heads = 1,
                        .io = io,
                        .a = in_a.data(),
                        .a_stride = 1,
                        .b = in_b.data(),
                        .b_stride = 1,
                        .a_log = &a_log,
                        .dt_bias = &dt_bias,
                        .g = &out.first,
                        .beta = &out.second});
    return out;
  }
};
GDN_ON_EVERY_IMPLEMENTATION(Gating);

TEST_P(Gating, AgainstTheOracle) {
  for (DType io : kTypes) {
    for (int heads : {1, 3, 32, 48}) {
      Rng rng(heads);
      const int64_t tokens = 19;
      const int64_t stride = 2 * heads + 8;  // b and a are columns of wider rows
      const Tensor packed = Tensor::Normal(rng, io, tokens * stride, 4.0f);
      const Tensor a_log = Tensor::Uniform(rng, DType::kFp32, heads, -4.0f, 3.0f);
      const Tensor dt_bias = Tensor::Normal(rng, DType::kFp32, heads, 2.0f);
      const auto* b = static_cast<const std::byte*>(packed.data());
      Tensor g(DType::kFp32, tokens * heads);
      Tensor beta(DType::kFp32, tokens * heads);
      FusedGdnGatingParams p = {tokens,        heads,   io,        b + heads * SizeOf(io),
                                stride,        b,       stride,    a_log.f32(),
                                dt_bias.f32(), g.f32(), beta.f32()};
      GetParam()->gating(p);
      Tensor g_truth = g;
      Tensor beta_truth = beta;
      p.g = g_truth.f32();
      p.beta = beta_truth.f32();
      oracle::FusedGdnGating(p);
      EXPECT_TRUE(Close(g, g_truth, {tokens, heads}, {1e-5, 1e-30, 1e-5}));
      EXPECT_TRUE(Close(beta, beta_truth, {tokens, heads}, {1e-5, 1e-30, 1e-5}));
    }
  }
}

TEST_P(Gating, BetaIsNotRoundedToIo) {
  for (float b : {0.3f, -1.7f, 2.9f}) {
    const double rounded_b = Tensor(DType::kBf16, 1, b)[0];
    const double truth = 1.0 / (1.0 + std::exp(-rounded_b));
    EXPECT_NEAR(Gate(DType::kBf16, 0.0f, b, 0.0f).second, truth, 1e-6);
  }
}

// log(1 + exp(x)) in fp32 is 0 below -16.6 and the decay exactly 1; log1p keeps both.
TEST_P(Gating, DecayStaysBelowOneForVeryNegativeInput) {
  for (float x : {-17.0f, -20.0f, -30.0f, -60.0f}) {
    const float a_log = -x - 5.0f;  // brings the decay back to where fp32 sees it
    const float g = Gate(DType::kFp32, x, 0.0f, a_log).first;
    const double truth = -std::exp(static_cast<double>(a_log)) * std::log1p(std::exp(x * 1.0));
    EXPECT_NEAR(g, truth, 1e-5 * std::abs(truth)) << x;
    EXPECT_LT(std::exp(g), 1.0f) << x;
  }
}

TEST_P(Gating, LargeInputPassesThroughSoftplus) {
  for (float x : {19.5f, 20.5f, 80.0f, 1e4f, 1e30f}) {
    EXPECT_NEAR(Gate(DType::kFp32, x, 0.0f, 0.0f).first, -x, 1e-5f * x) << x;
  }
}

TEST_P(Gating, BetaAtItsEnds) {
  EXPECT_EQ(Gate(DType::kFp32, 0.0f, 200.0f, 0.0f).second, 1.0f);
  EXPECT_LE(Gate(DType::kFp32, 0.0f, -200.0f, 0.0f).second, 1e-37f);
  EXPECT_GE(Gate(DType::kFp32, 0.0f, -200.0f, 0.0f).second, 0.0f);
}

class RmsNorm : public OpTest {};
GDN_ON_EVERY_IMPLEMENTATION(RmsNorm);

TEST_P(RmsNorm, EveryTypeGateAndWidth) {
  for (DType io : kTypes) {
    for (DType x_type : {io, DType::kFp32}) {
      for (Gate gate : {Gate::kSilu, Gate::kSigmoid}) {
        for (int dim : {64, 96, 128, 256}) {
          Rng rng(dim);
          const int64_t width = 3 * dim;
          const int64_t z_stride = width + 64;
          const Tensor x = Tensor::Normal(rng, x_type, 21 * width);
          const Tensor z = Tensor::Normal(rng, io, 21 * z_stride, 3.0f);
          const Tensor weight = Tensor::Normal(rng, DType::kFp32, dim);
          Tensor y(io, 21 * width);
          RmsNormGatedParams p = {21,       3,        dim,   x_type,   io,       gate,
                                  1e-6f,    x.data(), width, z.data(), z_stride, weight.f32(),
                                  y.data(), width};
          GetParam()->rmsnorm_gated(p);
          Tensor truth = y;
          p.y = truth.data();
          oracle::RmsNormGated(p);
          EXPECT_TRUE(Close(y, truth, {21, 3, dim}, RoundingOf(io)));
        }
      }
    }
  }
}

TEST_P(RmsNorm, OneSmallHead) {
  for (int dim : {4, 8, 16}) {
    Rng rng(dim);
    const Tensor x = Tensor::Normal(rng, DType::kFp32, 700 * dim);
    const Tensor z = Tensor::Normal(rng, DType::kFp32, x.size());
    const Tensor weight = Tensor::Normal(rng, DType::kFp32, dim);
    Tensor y(DType::kFp32, x.size());
    RmsNormGatedParams p = {.tokens = 700,
                            .value_heads = 1,
                            .value_dim = dim,
                            .x = x.data(),
                            .x_stride = dim,
                            .z = z.data(),
                            .z_stride = dim,
                            .weight = weight.f32(),
                            .y = y.data(),
                            .y_stride = dim};
    GetParam()->rmsnorm_gated(p);
    Tensor truth = y;
    p.y = truth.data();
    oracle::RmsNormGated(p);
    EXPECT_TRUE(Close(y, truth, {700, 1, dim}, RoundingOf(DType::kFp32)));
  }
}

TEST_P(RmsNorm, InPlaceWithZerosAndLargeGates) {
  Rng rng(3);
  Tensor x = Tensor::Normal(rng, DType::kFp32, 2 * 128);
  for (int i = 0; i < 64; ++i) x.set(i, 0.0f);
  Tensor z(DType::kFp32, 2 * 128, 100.0f);
  for (int i = 128; i < 256; ++i) z.set(i, -100.0f);
  const Tensor weight(DType::kFp32, 64, 2.0f);
  RmsNormGatedParams p = {.tokens = 2,
                          .value_heads = 2,
                          .value_dim = 64,
                          .x = x.data(),
                          .x_stride = 128,
                          .z = z.data(),
                          .z_stride = 128,
                          .weight = weight.f32()};
  Tensor truth(DType::kFp32, x.size());
  p.y = truth.data();
  p.y_stride = 128;
  oracle::RmsNormGated(p);
  p.y = x.data();
  GetParam()->rmsnorm_gated(p);
  EXPECT_TRUE(AllZero(x.floats(0, 64)));
  EXPECT_TRUE(Close(x, truth, {2, 2, 64}, {1e-5, 1e-5, 1e-5}));
}

class ProjectionTest : public OpTest {};
GDN_ON_EVERY_IMPLEMENTATION(ProjectionTest);

TEST_P(ProjectionTest, EveryTypeAndManySizes) {
  struct Size {
    int64_t in, out;
  };
  for (DType io : kTypes) {
    for (const auto& [in, out] : {Size{192, 200}, Size{192, 128}, Size{5120, 64}}) {
      for (int64_t tokens : {0, 1, 2, 7, 9, 16, 27, 32, 33, 70}) {
        SCOPED_TRACE(::testing::Message() << in << " to " << out << ", " << tokens << " tokens");
        Rng rng(tokens);
        const Tensor x = Tensor::Normal(rng, io, tokens * (in + 16));
        const Tensor w =
            Tensor::Normal(rng, io, in * out, 1.0f / std::sqrt(static_cast<float>(in)));
        Tensor y(io, tokens * out);
        ProjectionParams p = {tokens, in, out, io, x.data(), in + 16, w.data(), y.data(), out};
        GetParam()->projection(p);
        Tensor truth = y;
        p.y = truth.data();
        oracle::Projection(p);
        EXPECT_TRUE(Close(y, truth, {tokens, out}, RoundingOf(io)));
      }
    }
  }
}

}  // namespace
}  // namespace gdn::test
