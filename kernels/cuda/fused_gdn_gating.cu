#include "kernels/cuda/dtype.cuh"
#include "kernels/cuda/fused_gdn_gating.h"
#include "kernels/cuda/pointwise.cuh"

namespace gdn::cuda {
namespace {

constexpr int kTokens = 8;  // of a block; a warp takes a token, its lanes the heads

// g = -exp(a_log) * softplus(a + dt_bias);  beta = sigmoid(b)
template <typename T>
__global__ void FusedGdnGatingKernel(FusedGdnGatingParams p) {
  const int64_t token = int64_t{blockIdx.x} * kTokens + threadIdx.y;
  if (token >= p.tokens) return;
  const T* a = static_cast<const T*>(p.a) + token * p.a_stride;
  const T* b = static_cast<const T*>(p.b) + token * p.b_stride;
  const int64_t out = token * p.value_heads;
  for (int head = threadIdx.x; head < p.value_heads; head += 32) {
    const float rate = -expf(p.a_log[head]);
    p.g[out + head] = rate * Softplus(ToFloat(a[head]) + p.dt_bias[head]);
    p.beta[out + head] = Sigmoid(ToFloat(b[head]));
  }
}

}  // namespace

cudaError_t FusedGdnGating(const FusedGdnGatingParams& p, cudaStream_t stream) {
  if (p.tokens < 0 || p.tokens >= int64_t{1} << 31 || p.value_heads < 0) {
    return cudaErrorInvalidValue;
  }
  if (p.tokens == 0 || p.value_heads == 0) return cudaSuccess;
  const auto blocks = static_cast<unsigned>((p.tokens + kTokens - 1) / kTokens);
  return WithType(p.io, [&](auto io) {
    FusedGdnGatingKernel<decltype(io)><<<blocks, dim3(32, kTokens), 0, stream>>>(p);
    return cudaGetLastError();
  });
}

}  // namespace gdn::cuda
