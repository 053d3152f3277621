#pragma once

#include <cstdint>

#include "kernels/geometry.h"

namespace gdn {

// Per head: y = x * rsqrt(mean of x² over V + eps) * weight * gate(z), in fp32 or better.
struct RmsNormGatedParams {
  int64_t tokens = 0;
  int value_heads = 0;  // HV
  int value_dim = 0;    // V
  DType x_type = DType::kFp32;
  DType io = DType::kFp32;  // of z and y
  Gate gate = Gate::kSilu;
  float eps = 1e-6f;
  const void* x = nullptr;  // [tokens, HV, V]
  int64_t x_stride = 0;
  const void* z = nullptr;  // [tokens, HV, V]
  int64_t z_stride = 0;
  const float* weight = nullptr;  // [V]
  void* y = nullptr;              // [tokens, HV, V]; may be x where type and stride are x's
  int64_t y_stride = 0;
};

}  // namespace gdn
