#pragma once

#include <cstdint>

#include "kernels/geometry.h"

namespace gdn {

// g = -exp(a_log) * softplus(a + dt_bias), softplus(x) = x above 20 and log1p(exp(x)) below;
// beta = sigmoid(b). In fp32 or better from beginning to end: beta is never rounded to io.
struct FusedGdnGatingParams {
  int64_t tokens = 0;
  int value_heads = 0;  // HV
  DType io = DType::kFp32;
  const void* a = nullptr;  // [tokens, HV]
  int64_t a_stride = 0;
  const void* b = nullptr;  // [tokens, HV]
  int64_t b_stride = 0;
  const float* a_log = nullptr;    // [HV]
  const float* dt_bias = nullptr;  // [HV]
  float* g = nullptr;              // [tokens, HV] dense
  float* beta = nullptr;           // [tokens, HV] dense
};

}  // namespace gdn
