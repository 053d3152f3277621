// Element types on the device: conversions to and from fp32, and from a DType to a C++ type.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/geometry.h"

namespace gdn::cuda {

__device__ __forceinline__ float ToFloat(float x) { return x; }
__device__ __forceinline__ float ToFloat(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float ToFloat(__half x) { return __half2float(x); }

template <typename T>
__device__ __forceinline__ T FromFloat(float x);
template <>
__device__ __forceinline__ float FromFloat<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ __nv_bfloat16 FromFloat<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}
template <>
__device__ __forceinline__ __half FromFloat<__half>(float x) {
  return __float2half_rn(x);
}

// Calls f with a value of the C++ type of `type`, and returns what it returns.
template <typename F>
auto WithType(DType type, F&& f) {
  switch (type) {
    case DType::kBf16:
      return f(__nv_bfloat16{});
    case DType::kFp16:
      return f(__half{});
    case DType::kFp32:
      break;
  }
  return f(float{});
}

}  // namespace gdn::cuda
