// The oracle itself: against numbers by hand, and its parts against each other.
#include <gtest/gtest.h>

#include "kernels/cpu/oracle/layer.h"
#include "kernels/cpu/oracle/math.h"
#include "kernels/cpu/oracle/ops.h"
#include "tests/testing/cases.h"
#include "tests/testing/compare.h"
#include "tests/testing/layer_case.h"

namespace gdn::test {
namespace {

// K = 2, V = 1, from S = (2, 4): two tokens worked out on paper.
TEST(Oracle, DeltaStepByHand) {
  std::vector<double> s = {2, 4};
  std::vector<double> o = {0};
  const double half = std::log(0.5);
  // S = (1, 2); d = 0.5 * (3 - 1) = 1; S = (2, 2); o = 10 * (2 + 2 * 2)
  oracle::DeltaStep(s, std::vector<double>{1, 2}, std::vector<double>{1, 0}, std::vector<double>{3},
                    half, 0.5, 10, o);
  EXPECT_EQ(s, (std::vector<double>{2, 2}));
  EXPECT_DOUBLE_EQ(o[0], 60);
  // S as it is; d = 1 * (1 - 4) = -3; S = (-1, -1); o = -1
  oracle::DeltaStep(s, std::vector<double>{0, 1}, std::vector<double>{1, 1}, std::vector<double>{1},
                    0, 1, 1, o);
  EXPECT_EQ(s, (std::vector<double>{-1, -1}));
  EXPECT_DOUBLE_EQ(o[0], -1);
}

TEST(Oracle, PointFunctionsByHand) {
  EXPECT_DOUBLE_EQ(oracle::Sigmoid(0), 0.5);
  EXPECT_DOUBLE_EQ(oracle::Softplus(0), std::log(2.0));
  EXPECT_DOUBLE_EQ(oracle::Softplus(25), 25);
  EXPECT_NEAR(oracle::Softplus(-40), 4.248354255291589e-18, 1e-30);
  EXPECT_DOUBLE_EQ(oracle::LogDecay(0.5, std::log(2.0), -0.5), -2 * std::log(2.0));
  EXPECT_DOUBLE_EQ(oracle::ApplyGate(Gate::kSilu, 0), 0);
  EXPECT_DOUBLE_EQ(oracle::ApplyGate(Gate::kSigmoid, 0), 0.5);
}

// Width 3, two tokens behind a history of (1, 2): y = 10 x[-2] + 100 x[-1] + 1000 x[0] + 0.5.
TEST(Oracle, ConvolutionByHand) {
  const int64_t offsets[] = {0, 2};
  float x[] = {3, 4};
  float state[] = {1, 2};
  const float weight[] = {10, 100, 1000};
  const float bias[] = {0.5f};
  float y[2];
  CausalConv1dFnParams p;
  p.rows = {1, offsets, nullptr, nullptr};
  p.channels = 1;
  p.width = 3;
  p.x = x;
  p.x_stride = p.y_stride = 1;
  p.weight = weight;
  p.bias = bias;
  p.conv = {state, DType::kFp32, 2};
  p.y = y;
  oracle::CausalConv1dFn(p);
  EXPECT_EQ(y[0], 3210.5f);
  EXPECT_EQ(y[1], 4320.5f);
  EXPECT_EQ(state[0], 3);
  EXPECT_EQ(state[1], 4);
}

std::vector<std::byte> RandomInput(Rng& rng, const Geometry& g, InputLayout layout,
                                   int64_t tokens) {
  std::vector<std::byte> input;
  for (const InputTensor& t : InputTensors(g, layout, DType::kFp32)) {
    const Tensor x = t.kind == InputTensor::Kind::kG
                         ? Tensor::Uniform(rng, t.type, tokens * t.width, -1.0f, 0.0f)
                         : Tensor::Normal(rng, t.type, tokens * t.width);
    input.insert(input.end(), x.bytes().begin(), x.bytes().end());
  }
  return input;
}

// The layer in one piece and as the ops one after another.
TEST(Oracle, LayerIsTheOpsInOrder) {
  BackendShape s = SmallShape();
  const Geometry& g = s.geometry;
  const RandomLayer random(1, s);
  const LayerWeights w = random.weights();
  const oracle::Layer layer(g, w, s.io);
  Rng rng(2);
  const int64_t n = 9;
  const std::vector<std::byte> x = RandomInput(rng, g, InputLayout::kHidden, n);
  oracle::LayerState state = layer.EmptyState();
  const std::vector<double> out = layer.Run(InputLayout::kHidden, x, state);

  const int64_t width = g.in_proj_size();
  const RowSet rows({n});
  Tensor projected(DType::kFp32, n * width);
  oracle::Projection({n, g.hidden_size, width, s.io, x.data(), g.hidden_size, w.in_proj.data,
                      projected.data(), width});
  const float* z = projected.f32() + g.conv_dim();
  const float* b = z + g.value_size();
  const float* a = b + g.value_heads;
  Tensor y(DType::kFp32, n * g.conv_dim());
  Tensor conv(DType::kFp32, rows.slots() * g.conv_elements());
  CausalConv1dFnParams c;
  c.rows = rows.view();
  c.channels = g.conv_dim();
  c.width = g.conv_width;
  c.activation = g.conv_activation;
  c.x = projected.data();
  c.x_stride = width;
  c.weight = w.conv_weight.as<float>();
  c.bias = w.conv_bias.as<float>();
  c.conv = {conv.data(), DType::kFp32, g.conv_elements()};
  c.y = y.data();
  c.y_stride = g.conv_dim();
  oracle::CausalConv1dFn(c);
  Tensor decay(DType::kFp32, n * g.value_heads), beta(DType::kFp32, n * g.value_heads);
  oracle::FusedGdnGating({n, g.value_heads, s.io, a, width, b, width, w.a_log.as<float>(),
                          w.dt_bias.as<float>(), decay.f32(), beta.f32()});
  Tensor o(DType::kFp32, n * g.value_size());
  Tensor ssm(DType::kFp32, rows.slots() * g.ssm_elements());
  ChunkGatedDeltaRuleParams r;
  r.rows = rows.view();
  r.heads = {g.key_heads, g.value_heads, g.key_dim, g.value_dim};
  r.q = y.f32();
  r.k = y.f32() + g.key_size();
  r.v = y.f32() + 2 * g.key_size();
  r.q_stride = r.k_stride = r.v_stride = g.conv_dim();
  r.g = decay.f32();
  r.beta = beta.f32();
  r.scale = g.scale();
  r.qk_l2norm = g.qk_l2norm;
  r.ssm = {ssm.data(), DType::kFp32, g.ssm_elements()};
  r.o = o.data();
  r.o_stride = g.value_size();
  oracle::ChunkGatedDeltaRule(r);
  oracle::RmsNormGated({n, g.value_heads, g.value_dim, s.io, s.io, g.gate, g.norm_eps, o.data(),
                        g.value_size(), z, width, w.norm.as<float>(), o.data(), g.value_size()});
  Tensor result(DType::kFp32, n * g.hidden_size);
  oracle::Projection({n, g.value_size(), g.hidden_size, s.io, o.data(), g.value_size(),
                      w.out_proj.data, result.data(), g.hidden_size});

  const Tolerance t = {1e-4, 1e-5, 1e-5};
  EXPECT_TRUE(Close(result.floats(), out, {n, g.hidden_size}, t));
  const int64_t slot = rows.view().slot(0);
  EXPECT_TRUE(Close(ssm.floats(slot * g.ssm_elements(), g.ssm_elements()), state.ssm,
                    {g.value_heads, g.value_dim, g.key_dim}, t));
  EXPECT_TRUE(Close(conv.floats(slot * g.conv_elements(), g.conv_elements()), state.conv,
                    {g.conv_width - 1, g.conv_dim()}, t));
}

TEST(Oracle, LayerStepByStepIsTheLayerAtOnce) {
  for (int layout = 1; layout <= 5; ++layout) {
    SCOPED_TRACE(layout);
    const BackendShape s = SmallShape();
    const RandomLayer random(1, s);
    const oracle::Layer layer(s.geometry, random.weights(), s.io);
    Rng rng(3);
    const auto in_layout = static_cast<InputLayout>(layout);
    const auto first = RandomInput(rng, s.geometry, in_layout, 1);
    const auto second = RandomInput(rng, s.geometry, in_layout, 1);
    std::vector<std::byte> both;  // tensor by tensor
    size_t at = 0;
    for (const InputTensor& t : InputTensors(s.geometry, in_layout, s.io)) {
      for (const auto* one : {&first, &second}) {
        both.insert(both.end(), one->begin() + at, one->begin() + at + t.row_bytes());
      }
      at += t.row_bytes();
    }
    oracle::LayerState split = layer.EmptyState();
    std::vector<double> out = layer.Run(in_layout, first, split);
    const std::vector<double> tail = layer.Run(in_layout, second, split);
    out.insert(out.end(), tail.begin(), tail.end());
    oracle::LayerState whole = layer.EmptyState();
    EXPECT_EQ(layer.Run(in_layout, both, whole), out);
    EXPECT_EQ(whole.ssm, split.ssm);
    EXPECT_EQ(whole.conv, split.conv);
  }
}

}  // namespace
}  // namespace gdn::test
