#include "kernels/cuda/dtype.cuh"
#include "kernels/cuda/head_grid.cuh"
#include "kernels/cuda/pointwise.cuh"
#include "kernels/cuda/rmsnorm_gated.h"

namespace gdn::cuda {
namespace {

__device__ __forceinline__ float ApplyGate(Gate gate, float z) {
  return gate == Gate::kSilu ? Silu(z) : Sigmoid(z);
}

// y = x * rsqrt(mean of x² + eps) * weight * gate(z), each lane holding one pack of the head.
template <typename X, typename IO>
__global__ void __launch_bounds__(kHeadThreads) PackedRmsNormGatedKernel(RmsNormGatedParams p) {
  const int64_t head = blockIdx.y * blockDim.y + threadIdx.y;
  if (head >= p.value_heads) return;
  const int begin = threadIdx.x * kHeadPack;
  const int64_t within = head * p.value_dim + begin;
  const X* x = static_cast<const X*>(p.x) + within;
  const IO* z = static_cast<const IO*>(p.z) + within;
  IO* y = static_cast<IO*>(p.y) + within;
  Pack<X, kHeadPack> raw[kHeadTokens] = {};
  Pack<IO, kHeadPack> gates[kHeadTokens] = {};
#pragma unroll
  for (int i = 0; i < kHeadTokens; ++i) {
    if (begin < p.value_dim && HeadToken(i) < p.tokens) {
      raw[i] = LoadRaw<kHeadPack>(x + HeadToken(i) * p.x_stride);
      gates[i] = LoadRaw<kHeadPack>(z + HeadToken(i) * p.z_stride);
    }
  }
  Pack<float, kHeadPack> weight = {};
  if (begin < p.value_dim) weight = LoadPack<kHeadPack>(p.weight + begin);
#pragma unroll
  for (int i = 0; i < kHeadTokens; ++i) {
    Pack<float, kHeadPack> values = Widen(raw[i]);
    float sum = 0.0f;
#pragma unroll
    for (float value : values.e) sum += value * value;
    const float scale = InverseRoot(SumOverHead(sum) / static_cast<float>(p.value_dim) + p.eps);
#pragma unroll
    for (int e = 0; e < kHeadPack; ++e) {
      values.e[e] *= scale * weight.e[e] * ApplyGate(p.gate, ToFloat(gates[i].e[e]));
    }
    if (begin < p.value_dim && HeadToken(i) < p.tokens) {
      StorePack(values, y + HeadToken(i) * p.y_stride);
    }
  }
}

// The same for heads of any size and place, element by element.
template <typename X, typename IO>
__global__ void __launch_bounds__(kHeadThreads) AnyRmsNormGatedKernel(RmsNormGatedParams p) {
  const int64_t head = blockIdx.y * blockDim.y + threadIdx.y;
  if (head >= p.value_heads) return;
  const int64_t within = head * p.value_dim;
  for (int t = 0; t < kHeadTokens && HeadToken(t) < p.tokens; ++t) {
    const X* x = static_cast<const X*>(p.x) + HeadToken(t) * p.x_stride + within;
    const IO* z = static_cast<const IO*>(p.z) + HeadToken(t) * p.z_stride + within;
    IO* y = static_cast<IO*>(p.y) + HeadToken(t) * p.y_stride + within;
    float sum = 0.0f;
    for (int i = threadIdx.x; i < p.value_dim; i += blockDim.x) {
      const float value = ToFloat(x[i]);
      sum += value * value;
    }
    const float scale = InverseRoot(SumOverHead(sum) / static_cast<float>(p.value_dim) + p.eps);
    for (int i = threadIdx.x; i < p.value_dim; i += blockDim.x) {
      const float gate = ApplyGate(p.gate, ToFloat(z[i]));
      y[i] = FromFloat<IO>(ToFloat(x[i]) * (scale * p.weight[i] * gate));
    }
  }
}

bool Packed(const RmsNormGatedParams& p) {
  return p.value_dim <= kMaxPackedDim && p.value_dim % kHeadPack == 0 &&
         TakesPacks<kHeadPack>(p.x, p.x_stride) && TakesPacks<kHeadPack>(p.y, p.y_stride) &&
         TakesPacks<kHeadPack>(p.z, p.z_stride) && TakesPacks<kHeadPack>(p.weight, 0);
}

}  // namespace

cudaError_t RmsNormGated(const RmsNormGatedParams& p, cudaStream_t stream) {
  if (p.tokens < 0 || p.value_heads < 0 || p.value_dim < 0) return cudaErrorInvalidValue;
  if (!FitsGrid(p.tokens, p.value_heads)) return cudaErrorInvalidValue;
  if (p.tokens == 0 || p.value_heads == 0 || p.value_dim == 0) return cudaSuccess;
  const bool packed = Packed(p);
  const HeadGrid grid =
      OverHeads(p.tokens, p.value_heads, packed ? LanesOfPackedHead(p.value_dim) : 32);
  return WithType(p.x_type, [&](auto x) {
    return WithType(p.io, [&](auto io) {
      using X = decltype(x);
      using IO = decltype(io);
      const auto kernel = packed ? PackedRmsNormGatedKernel<X, IO> : AnyRmsNormGatedKernel<X, IO>;
      kernel<<<grid.blocks, grid.threads, 0, stream>>>(p);
      return cudaGetLastError();
    });
  });
}

}  // namespace gdn::cuda
