// The gated delta rule over rows of tokens. Both forms compute the same; the chunked one takes its
// steps 64 tokens at a time (prefill), the recurrent one token by token (decode).
#pragma once

#include "kernels/ops/operands.h"

namespace gdn {

// For each row, token and value head, with S in fp32 or better:
//   q, k = x * rsqrt(sum x² + 1e-6) over K        if qk_l2norm
//   S *= exp(g);  d = beta * (v - Sᵀ k);  S += k ⊗ d;  o = scale * Sᵀ q
// S starts from the row's slot and ends there. PAD rows: o is zero, nothing else is touched.
struct GatedDeltaRuleParams {
  Rows rows;
  Heads heads;
  DType io = DType::kFp32;  // of q, k, v
  DType o_type = DType::kFp32;
  const void* q = nullptr;  // [T, H, K]
  int64_t q_stride = 0;
  const void* k = nullptr;  // [T, H, K]
  int64_t k_stride = 0;
  const void* v = nullptr;  // [T, HV, V]
  int64_t v_stride = 0;
  const float* g = nullptr;     // [T, HV] log decay, <= 0; null: 0
  const float* beta = nullptr;  // [T, HV], 0 to 2; null: 1
  float scale = 1.0f;
  bool qk_l2norm = false;
  StatePool ssm;      // a slot: [HV, V, K]
  void* o = nullptr;  // [T, HV, V]
  int64_t o_stride = 0;
};

}  // namespace gdn
