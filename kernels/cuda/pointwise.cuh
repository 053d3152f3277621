// The layer's point functions on the device, in fp32. Sigmoid and Silu are good to a few units in
// the last place and keep the classes of the exact functions: NaN for NaN and for silu(-inf).
#pragma once

namespace gdn::cuda {

__device__ __forceinline__ float Sigmoid(float x) { return __fdividef(1.0f, 1.0f + __expf(-x)); }

__device__ __forceinline__ float Silu(float x) { return __fdividef(x, 1.0f + __expf(-x)); }

// log(1 + exp(x)), x itself above 20.
__device__ __forceinline__ float Softplus(float x) { return x > 20.0f ? x : log1pf(expf(x)); }

}  // namespace gdn::cuda
