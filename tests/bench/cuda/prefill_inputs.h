// What a prefill's ops run on, from the merged projection to the normed output: 16/32 heads of 128,
// bf16, fp32 state, a convolution of width 4 with silu.
#pragma once

#include <cstdint>

#include "kernels/ops/causal_conv1d.h"
#include "kernels/ops/chunk_gated_delta_rule.h"
#include "kernels/ops/fused_gdn_gating.h"
#include "kernels/ops/rmsnorm_gated.h"
#include "tests/bench/cuda/device.h"
#include "tests/bench/cuda/rows.h"

namespace gdn::bench {

class PrefillInputs {
 public:
  static constexpr int kDim = 128;  // K and V
  static constexpr int kWidth = 4;
  static constexpr int kKeyHeads = 16;
  static constexpr int kValueHeads = 32;
  static constexpr int64_t kKeySize = int64_t{kKeyHeads} * kDim;
  static constexpr int64_t kValueSize = int64_t{kValueHeads} * kDim;
  static constexpr int64_t kConvDim = 2 * kKeySize + kValueSize;
  static constexpr int64_t kInput = kConvDim + kValueSize + 2 * kValueHeads;  // of a token
  static constexpr int64_t kConvState = (kWidth - 1) * kConvDim;
  static constexpr int64_t kSsmState = kValueSize * kDim;
  static constexpr DType kIo = DType::kBf16;

  // `sets` of inputs [tokens, q | k | v | z | b | a], as the merged projection leaves them.
  PrefillInputs(int64_t rows, int64_t length, int sets);

  int sets() const { return sets_; }
  int64_t tokens() const { return rows_.tokens(); }
  Rows rows() const { return rows_.rows(); }
  Chunks chunks() const { return rows_.chunks(); }

  // The ops, one on what the one before leaves; the norm in place.
  CausalConv1dFnParams Conv(int set) const;
  FusedGdnGatingParams Gating(int set) const;
  ChunkGatedDeltaRuleParams Rule(int set) const;
  RmsNormGatedParams Norm(int set) const;

 private:
  const uint16_t* Token(int set) const { return input_.as<uint16_t>() + set * tokens() * kInput; }

  int sets_;
  DeviceRows rows_;
  Buffer input_, conv_, ssm_, conv_weight_, a_log_, dt_bias_, norm_;
  Buffer convolved_, g_, beta_, o_;  // o_ for each set
};

}  // namespace gdn::bench
