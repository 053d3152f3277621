#pragma once

#include <cstdint>

#include "kernels/geometry.h"

namespace gdn {

// y = x * rsqrt(sum of x² over dim + eps), in fp32 or better.
struct L2NormParams {
  int64_t tokens = 0;
  int heads = 0;
  int dim = 0;
  DType x_type = DType::kFp32;
  DType y_type = DType::kFp32;
  const void* x = nullptr;  // [tokens, heads, dim]
  int64_t x_stride = 0;
  void* y = nullptr;  // [tokens, heads, dim]; may be x where type and stride are x's
  int64_t y_stride = 0;
  float eps = 1e-6f;
};

}  // namespace gdn
