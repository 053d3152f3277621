#pragma once

#include <cstdint>

#include "kernels/geometry.h"

namespace gdn {

// y = x · wᵀ, accumulated in fp32 or better.
struct ProjectionParams {
  int64_t tokens = 0;
  int64_t in = 0;
  int64_t out = 0;
  DType io = DType::kFp32;
  const void* x = nullptr;  // [tokens, in]
  int64_t x_stride = 0;
  const void* w = nullptr;  // [out, in] dense
  void* y = nullptr;        // [tokens, out]
  int64_t y_stride = 0;
};

}  // namespace gdn
