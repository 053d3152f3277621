#include "kernels/cuda/device/launch.cuh"
#include "kernels/cuda/device/ptx.cuh"
#include "kernels/cuda/ops/fused_gdn_gating.cuh"
#include "kernels/cuda/ops/fused_gdn_gating.h"

namespace gdn::cuda {
namespace {

constexpr int kTokens = 8;  // of a block, a warp each

template <typename T>
__global__ void FusedGdnGatingKernel(FusedGdnGatingParams p) {
  GridDependencyWait();
  GridDependencyLaunch();
  const int64_t token = int64_t{blockIdx.x} * kTokens + threadIdx.y;
  if (token < p.tokens) GateTokens<T>(p, token, token + 1, 1, threadIdx.x);
}

}  // namespace

cudaError_t FusedGdnGating(const FusedGdnGatingParams& p, cudaStream_t stream) {
  if (!Valid(p)) return cudaErrorInvalidValue;
  if (p.tokens == 0 || p.value_heads == 0) return cudaSuccess;
  const auto blocks = static_cast<unsigned>((p.tokens + kTokens - 1) / kTokens);
  return WithType(p.io, [&](auto io) {
    return LaunchDependent(FusedGdnGatingKernel<decltype(io)>, blocks, dim3(32, kTokens), 0, stream,
                           p);
  });
}

}  // namespace gdn::cuda
