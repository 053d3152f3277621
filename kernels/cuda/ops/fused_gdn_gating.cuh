// The gates of some tokens, by the warps of a block.
#pragma once

#include "kernels/cuda/device/dtype.cuh"
#include "kernels/cuda/device/pointwise.cuh"
#include "kernels/ops/fused_gdn_gating.h"

namespace gdn::cuda {

// g = -exp(a_log) * softplus(a + dt_bias);  beta = sigmoid(b)
//
// Of tokens first, first + step… below `end`. A warp takes a token, its lanes the heads.
template <typename T>
__device__ __forceinline__ void GateTokens(const FusedGdnGatingParams& p, int64_t first,
                                           int64_t end, int step, int lane) {
  for (int head = lane; head < p.value_heads; head += 32) {
    const float rate = -expf(p.a_log[head]);
    const float bias = p.dt_bias[head];
#pragma unroll 4
    for (int64_t token = first; token < end; token += step) {
      const T a = static_cast<const T*>(p.a)[token * p.a_stride + head];
      const T b = static_cast<const T*>(p.b)[token * p.b_stride + head];
      const int64_t out = token * p.value_heads + head;
      p.g[out] = rate * Softplus(ToFloat(a) + bias);
      p.beta[out] = Sigmoid(ToFloat(b));
    }
  }
}

inline bool Valid(const FusedGdnGatingParams& p) {
  return p.tokens >= 0 && p.tokens < int64_t{1} << 31 && p.value_heads >= 0;
}

}  // namespace gdn::cuda
