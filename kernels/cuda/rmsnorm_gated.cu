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
__device__ void NormalisePacked(const RmsNormGatedParams& p, const X* x, const IO* z, IO* y) {
  const int begin = threadIdx.x * kHeadPack;
  const bool inside = begin < p.value_dim;
  Pack<float, kHeadPack> values = {};
  Pack<float, kHeadPack> gates = {};
  Pack<float, kHeadPack> weights = {};
  if (inside) {
    values = LoadPack<kHeadPack>(x + begin);
    gates = LoadPack<kHeadPack>(z + begin);
    weights = LoadPack<kHeadPack>(p.weight + begin);
  }
  float sum = 0.0f;
#pragma unroll
  for (float value : values.e) sum += value * value;
  const float scale = rsqrtf(SumOverHead(sum) / static_cast<float>(p.value_dim) + p.eps);
#pragma unroll
  for (int i = 0; i < kHeadPack; ++i) {
    values.e[i] *= scale * weights.e[i] * ApplyGate(p.gate, gates.e[i]);
  }
  if (inside) StorePack(values, y + begin);
}

// The same for heads of any size and place, element by element.
template <typename X, typename IO>
__device__ void NormaliseAny(const RmsNormGatedParams& p, const X* x, const IO* z, IO* y) {
  float sum = 0.0f;
  for (int i = threadIdx.x; i < p.value_dim; i += blockDim.x) {
    const float value = ToFloat(x[i]);
    sum += value * value;
  }
  const float scale = rsqrtf(SumOverHead(sum) / static_cast<float>(p.value_dim) + p.eps);
  for (int i = threadIdx.x; i < p.value_dim; i += blockDim.x) {
    const float gate = ApplyGate(p.gate, ToFloat(z[i]));
    y[i] = FromFloat<IO>(ToFloat(x[i]) * (scale * p.weight[i] * gate));
  }
}

template <typename X, typename IO, bool kPacked>
__global__ void __launch_bounds__(kHeadThreads) RmsNormGatedKernel(RmsNormGatedParams p) {
  const int64_t token = int64_t{blockIdx.x} * blockDim.z + threadIdx.z;
  const int64_t head = blockIdx.y * blockDim.y + threadIdx.y;
  if (token >= p.tokens || head >= p.value_heads) return;
  const int64_t within = head * p.value_dim;
  const X* x = static_cast<const X*>(p.x) + token * p.x_stride + within;
  const IO* z = static_cast<const IO*>(p.z) + token * p.z_stride + within;
  IO* y = static_cast<IO*>(p.y) + token * p.y_stride + within;
  if constexpr (kPacked) {
    NormalisePacked(p, x, z, y);
  } else {
    NormaliseAny(p, x, z, y);
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
      const auto kernel =
          packed ? RmsNormGatedKernel<X, IO, true> : RmsNormGatedKernel<X, IO, false>;
      kernel<<<grid.blocks, grid.threads, 0, stream>>>(p);
      return cudaGetLastError();
    });
  });
}

}  // namespace gdn::cuda
