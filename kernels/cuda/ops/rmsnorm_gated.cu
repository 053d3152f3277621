#include "kernels/cuda/device/dtype.cuh"
#include "kernels/cuda/device/launch.cuh"
#include "kernels/cuda/device/pointwise.cuh"
#include "kernels/cuda/device/ptx.cuh"
#include "kernels/cuda/ops/head_grid.cuh"
#include "kernels/cuda/ops/rmsnorm_gated.h"

namespace gdn::cuda {
namespace {

__device__ __forceinline__ float ApplyGate(Gate gate, float z) {
  return gate == Gate::kSilu ? Silu(z) : Sigmoid(z);
}

// A group of lanes takes so many tokens of a head, of which it has kAhead under way.
constexpr int kTokens = 4;
constexpr int kAhead = 2;
constexpr int kBlocks = 4;  // on one multiprocessor

// One lane's part of a token's head.
template <typename X, typename IO>
struct Part {
  Words<X, kHeadPack> x;
  Words<IO, kHeadPack> z;
};

// y = x * rsqrt(mean of x² + eps) * weight * gate(z)
template <typename X, typename IO>
__device__ __forceinline__ Pack<float, kHeadPack> NormAndGate(
    const RmsNormGatedParams& p, const Part<X, IO>& part, const Pack<float, kHeadPack>& weight) {
  Pack<float, kHeadPack> y = Widen(part.x);
  const Pack<float, kHeadPack> z = Widen(part.z);
  float sum = 0.0f;
#pragma unroll
  for (float value : y.e) sum += value * value;
  const float scale = InverseRoot(SumOverHead(sum) / static_cast<float>(p.value_dim) + p.eps);
#pragma unroll
  for (int e = 0; e < kHeadPack; ++e) {
    y.e[e] *= scale * weight.e[e] * ApplyGate(p.gate, z.e[e]);
  }
  return y;
}

// Each lane holds one pack of a head. The last tokens come first: of what the kernel before has
// written they are what is still in L2.
template <typename X, typename IO>
__global__ void __launch_bounds__(kHeadThreads, kBlocks)
    PackedRmsNormGatedKernel(const __grid_constant__ RmsNormGatedParams p) {
  GridDependencyWait();
  GridDependencyLaunch();
  const int64_t head = blockIdx.y * blockDim.y + threadIdx.y;
  if (head >= p.value_heads) return;
  const int begin = threadIdx.x * kHeadPack;
  const bool within = begin < p.value_dim;
  const int64_t column = head * p.value_dim + begin;
  const int64_t block = gridDim.x - 1 - blockIdx.x;
  const int64_t first = block * kTokens * blockDim.z + threadIdx.z;
  const int step = blockDim.z;
  const X* x = static_cast<const X*>(p.x) + first * p.x_stride + column;
  const IO* z = static_cast<const IO*>(p.z) + first * p.z_stride + column;
  IO* y = static_cast<IO*>(p.y) + first * p.y_stride + column;
  int64_t to_load = within ? p.tokens - first : 0;
  const auto next = [&] {
    Part<X, IO> part;
    if (to_load > 0) {
      part.x = LoadWords<kHeadPack>(x);
      part.z = LoadWords<kHeadPack>(z);
    }
    to_load -= step;
    x += step * p.x_stride;
    z += step * p.z_stride;
    return part;
  };
  Part<X, IO> ahead[kAhead];
#pragma unroll
  for (Part<X, IO>& part : ahead) part = next();
  Pack<float, kHeadPack> weight = {};
  if (within) weight = LoadPack<kHeadPack>(p.weight + begin);
  int64_t to_store = within ? p.tokens - first : 0;
#pragma unroll
  for (int t = 0; t < kTokens; ++t) {
    const Part<X, IO> part = ahead[t % kAhead];
    if (t + kAhead < kTokens) ahead[t % kAhead] = next();
    const auto normed = NormAndGate(p, part, weight);
    if (to_store > 0) StorePack(normed, y);
    to_store -= step;
    y += step * p.y_stride;
  }
}

// The same for heads of any size and place, element by element.
template <typename X, typename IO>
__global__ void __launch_bounds__(kHeadThreads)
    AnyRmsNormGatedKernel(const __grid_constant__ RmsNormGatedParams p) {
  GridDependencyWait();
  GridDependencyLaunch();
  const int64_t head = blockIdx.y * blockDim.y + threadIdx.y;
  if (head >= p.value_heads) return;
  const int64_t within = head * p.value_dim;
  const int64_t first = int64_t{blockIdx.x} * kTokens * blockDim.z + threadIdx.z;
  for (int t = 0; t < kTokens; ++t) {
    const int64_t token = first + t * blockDim.z;
    if (token >= p.tokens) return;
    const X* x = static_cast<const X*>(p.x) + token * p.x_stride + within;
    const IO* z = static_cast<const IO*>(p.z) + token * p.z_stride + within;
    IO* y = static_cast<IO*>(p.y) + token * p.y_stride + within;
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
      OverHeads(p.tokens, p.value_heads, packed ? LanesOfPackedHead(p.value_dim) : 32, kTokens);
  return WithType(p.x_type, [&](auto x) {
    return WithType(p.io, [&](auto io) {
      using X = decltype(x);
      using IO = decltype(io);
      const auto kernel = packed ? PackedRmsNormGatedKernel<X, IO> : AnyRmsNormGatedKernel<X, IO>;
      return LaunchDependent(kernel, grid.blocks, grid.threads, 0, stream, p);
    });
  });
}

}  // namespace gdn::cuda
