#pragma once

#include "kernels/ops/operands.h"

namespace gdn {

// Bits of a row's entry in FusedGdnDecodeParams::faults.
inline constexpr uint32_t kFaultNonFinite = 1;  // NaN or infinity in the row's input: its state is
                                                // as it was, its output undefined
inline constexpr uint32_t kFaultOverflow = 2;   // in its output, from finite input

// Decode as one op, for each row token by token, straight from the projections:
//   y = activation(conv(mixed_qkv)) by the conv state;  q | k | v = y, fp32 throughout
//   g = -exp(a_log) * softplus(a + dt_bias);  beta = sigmoid(b)       unless given
//   the recurrent gated delta rule on the ssm state (kernels/ops/gated_delta_rule.h)
//   o = rmsnorm(o) * norm_weight * gate(z)                            where z is given
// Both states are updated in place by slot. A row has few tokens: one, or a draft to be verified.
struct FusedGdnDecodeParams {
  Rows rows;  // null offsets: every row has one token
  Heads heads;
  int conv_width = 4;
  DType io = DType::kBf16;
  Activation activation = Activation::kSilu;
  Gate gate = Gate::kSilu;
  bool qk_l2norm = true;
  float scale = 1.0f;
  float norm_eps = 1e-6f;
  const void* mixed_qkv = nullptr;  // [T, conv_dim] before the convolution
  int64_t mixed_stride = 0;
  const void* z = nullptr;  // [T, HV, V]; null: o is neither normed nor gated
  int64_t z_stride = 0;
  const void* b = nullptr;  // [T, HV], with a
  const void* a = nullptr;  // [T, HV]
  int64_t ba_stride = 0;
  const float* beta = nullptr;         // [T, HV] dense, with g, in place of b and a
  const float* g = nullptr;            // [T, HV] dense
  const float* conv_weight = nullptr;  // [conv_dim, W]
  const float* conv_bias = nullptr;    // [conv_dim] or null
  const float* a_log = nullptr;        // [HV]
  const float* dt_bias = nullptr;      // [HV]
  const float* norm_weight = nullptr;  // [V]
  StatePool conv;                      // a slot: [W - 1, conv_dim], of type io
  StatePool ssm;                       // a slot: [HV, V, K]
  void* o = nullptr;                   // [T, HV, V] io
  int64_t o_stride = 0;
  // [N] zero before the launch; bits are set, none is cleared. From bit 8 on they are scratch
  // meanwhile, and zero again after it.
  uint32_t* faults = nullptr;
};

}  // namespace gdn
