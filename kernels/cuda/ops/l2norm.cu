#include "kernels/cuda/device/dtype.cuh"
#include "kernels/cuda/device/pointwise.cuh"
#include "kernels/cuda/ops/head_grid.cuh"
#include "kernels/cuda/ops/l2norm.h"

namespace gdn::cuda {
namespace {

// y = x * rsqrt(sum of x² + eps), each lane holding one pack of the head.
template <typename X, typename Y>
__global__ void __launch_bounds__(kHeadThreads) PackedL2NormKernel(L2NormParams p) {
  const int64_t head = blockIdx.y * blockDim.y + threadIdx.y;
  if (head >= p.heads) return;
  const int begin = threadIdx.x * kHeadPack;
  const int64_t within = head * p.dim + begin;
  const X* x = static_cast<const X*>(p.x) + within;
  Y* y = static_cast<Y*>(p.y) + within;
  Pack<X, kHeadPack> raw[kHeadTokens] = {};
#pragma unroll
  for (int i = 0; i < kHeadTokens; ++i) {
    if (begin < p.dim && HeadToken(i) < p.tokens) {
      raw[i] = LoadRaw<kHeadPack>(x + HeadToken(i) * p.x_stride);
    }
  }
#pragma unroll
  for (int i = 0; i < kHeadTokens; ++i) {
    Pack<float, kHeadPack> values = Widen(raw[i]);
    float sum = 0.0f;
#pragma unroll
    for (float value : values.e) sum += value * value;
    const float scale = InverseRoot(SumOverHead(sum) + p.eps);
#pragma unroll
    for (float& value : values.e) value *= scale;
    if (begin < p.dim && HeadToken(i) < p.tokens) StorePack(values, y + HeadToken(i) * p.y_stride);
  }
}

// The same for heads of any size and place, element by element.
template <typename X, typename Y>
__global__ void __launch_bounds__(kHeadThreads) AnyL2NormKernel(L2NormParams p) {
  const int64_t head = blockIdx.y * blockDim.y + threadIdx.y;
  if (head >= p.heads) return;
  for (int t = 0; t < kHeadTokens && HeadToken(t) < p.tokens; ++t) {
    const X* x = static_cast<const X*>(p.x) + HeadToken(t) * p.x_stride + head * p.dim;
    Y* y = static_cast<Y*>(p.y) + HeadToken(t) * p.y_stride + head * p.dim;
    float sum = 0.0f;
    for (int i = threadIdx.x; i < p.dim; i += blockDim.x) {
      const float value = ToFloat(x[i]);
      sum += value * value;
    }
    const float scale = InverseRoot(SumOverHead(sum) + p.eps);
    for (int i = threadIdx.x; i < p.dim; i += blockDim.x) {
      y[i] = FromFloat<Y>(ToFloat(x[i]) * scale);
    }
  }
}

}  // namespace

cudaError_t L2Norm(const L2NormParams& p, cudaStream_t stream) {
  if (p.tokens < 0 || p.heads < 0 || p.dim < 0) return cudaErrorInvalidValue;
  if (!FitsGrid(p.tokens, p.heads)) return cudaErrorInvalidValue;
  if (p.tokens == 0 || p.heads == 0 || p.dim == 0) return cudaSuccess;
  const bool packed = p.dim <= kMaxPackedDim && p.dim % kHeadPack == 0 &&
                      TakesPacks<kHeadPack>(p.x, p.x_stride) &&
                      TakesPacks<kHeadPack>(p.y, p.y_stride);
  const HeadGrid grid =
      OverHeads(p.tokens, p.heads, packed ? LanesOfPackedHead(p.dim) : 32, kHeadTokens);
  return WithType(p.x_type, [&](auto x) {
    return WithType(p.y_type, [&](auto y) {
      using X = decltype(x);
      using Y = decltype(y);
      const auto kernel = packed ? PackedL2NormKernel<X, Y> : AnyL2NormKernel<X, Y>;
      kernel<<<grid.blocks, grid.threads, 0, stream>>>(p);
      return cudaGetLastError();
    });
  });
}

}  // namespace gdn::cuda
