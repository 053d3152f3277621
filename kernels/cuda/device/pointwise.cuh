// The layer's point functions on the device, in fp32. Sigmoid and Silu are good to a few units in
// the last place and keep the classes of the exact functions: NaN for NaN and for silu(-inf).
#pragma once

#include <cmath>

namespace gdn::cuda {

__device__ __forceinline__ float Sigmoid(float x) { return __fdividef(1.0f, 1.0f + __expf(-x)); }

__device__ __forceinline__ float Silu(float x) { return __fdividef(x, 1.0f + __expf(-x)); }

// log(1 + exp(x)), x itself above 20.
__device__ __forceinline__ float Softplus(float x) { return x > 20.0f ? x : log1pf(expf(x)); }

// 1 / sqrt(x). NaN, not 0, where a sum of squares has overflowed: what is scaled by it would be
// finite and wrong.
__device__ __forceinline__ float InverseRoot(float x) {
  return x < INFINITY ? rsqrtf(x) : __int_as_float(0x7fffffff);
}

}  // namespace gdn::cuda
