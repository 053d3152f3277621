#include "tests/bench/cuda/prefill_inputs.h"

#include <cmath>
#include <vector>

#include "tests/bench/cuda/random.h"

namespace gdn::bench {

PrefillInputs::PrefillInputs(int64_t rows, int64_t length, int sets)
    : sets_(sets),
      rows_(std::vector<int64_t>(static_cast<size_t>(rows), length)),
      input_(Normal(kIo, sets * tokens() * kInput, 1.0f, 1)),
      conv_(Normal(kIo, rows * kConvState, 1.0f, 2)),
      ssm_(Normal(DType::kFp32, rows * kSsmState, 0.1f, 8)),
      conv_weight_(Normal(DType::kFp32, kConvDim * kWidth, 0.5f, 3)),
      a_log_(Normal(DType::kFp32, kValueHeads, 1.0f, 4)),
      dt_bias_(Normal(DType::kFp32, kValueHeads, 1.0f, 5)),
      norm_(Normal(DType::kFp32, kDim, 1.0f, 6)),
      convolved_(tokens() * kConvDim * SizeOf(kIo)),
      g_(tokens() * kValueHeads * sizeof(float)),
      beta_(tokens() * kValueHeads * sizeof(float)),
      o_(Normal(kIo, sets * tokens() * kValueSize, 1.0f, 7)) {}

CausalConv1dFnParams PrefillInputs::Conv(int set) const {
  CausalConv1dFnParams p;
  p.rows = rows();
  p.channels = kConvDim;
  p.width = kWidth;
  p.io = kIo;
  p.activation = Activation::kSilu;
  p.x = Token(set);
  p.x_stride = kInput;
  p.weight = conv_weight_.as<float>();
  p.conv = {conv_.bytes(), kIo, kConvState};
  p.y = convolved_.bytes();
  p.y_stride = kConvDim;
  return p;
}

FusedGdnGatingParams PrefillInputs::Gating(int set) const {
  const uint16_t* b = Token(set) + kConvDim + kValueSize;
  return {.tokens = tokens(),
          .value_heads = kValueHeads,
          .io = kIo,
          .a = b + kValueHeads,
          .a_stride = kInput,
          .b = b,
          .b_stride = kInput,
          .a_log = a_log_.as<float>(),
          .dt_bias = dt_bias_.as<float>(),
          .g = g_.as<float>(),
          .beta = beta_.as<float>()};
}

ChunkGatedDeltaRuleParams PrefillInputs::Rule(int set) const {
  const uint16_t* q = convolved_.as<uint16_t>();
  ChunkGatedDeltaRuleParams p;
  p.rows = rows();
  p.heads = {kKeyHeads, kValueHeads, kDim, kDim};
  p.io = p.o_type = kIo;
  p.q = q;
  p.k = q + kKeySize;
  p.v = q + 2 * kKeySize;
  p.q_stride = p.k_stride = p.v_stride = kConvDim;
  p.g = g_.as<float>();
  p.beta = beta_.as<float>();
  p.scale = 1.0f / std::sqrt(static_cast<float>(kDim));
  p.qk_l2norm = true;
  p.ssm = {ssm_.bytes(), DType::kFp32, kSsmState};
  p.o = o_.as<uint16_t>() + set * tokens() * kValueSize;
  p.o_stride = kValueSize;
  return p;
}

RmsNormGatedParams PrefillInputs::Norm(int set) const {
  uint16_t* o = o_.as<uint16_t>() + set * tokens() * kValueSize;
  return {.tokens = tokens(),
          .value_heads = kValueHeads,
          .value_dim = kDim,
          .x_type = kIo,
          .io = kIo,
          .x = o,
          .x_stride = kValueSize,
          .z = Token(set) + kConvDim,
          .z_stride = kInput,
          .weight = norm_.as<float>(),
          .y = o,
          .y_stride = kValueSize};
}

}  // namespace gdn::bench
