#include "kernels/cuda/dtype.cuh"
#include "kernels/cuda/l2norm.h"

namespace gdn::cuda {
namespace {

constexpr int kWarps = 8;  // of a block; a warp takes one head of one token

template <typename X, typename Y>
__global__ void L2NormKernel(L2NormParams p) {
  const int lane = threadIdx.x % 32;
  const int64_t item = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (item >= p.tokens * p.heads) return;
  const int64_t token = item / p.heads;
  const int64_t head = item % p.heads;
  const X* x = static_cast<const X*>(p.x) + token * p.x_stride + head * p.dim;
  Y* y = static_cast<Y*>(p.y) + token * p.y_stride + head * p.dim;
  float sum = 0.0f;
  for (int i = lane; i < p.dim; i += 32) {
    const float value = ToFloat(x[i]);
    sum += value * value;
  }
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
  const float scale = rsqrtf(sum + p.eps);
  for (int i = lane; i < p.dim; i += 32) y[i] = FromFloat<Y>(ToFloat(x[i]) * scale);
}

}  // namespace

cudaError_t L2Norm(const L2NormParams& p, cudaStream_t stream) {
  const int64_t items = p.tokens * p.heads;
  if (items == 0) return cudaSuccess;
  const auto blocks = static_cast<unsigned>((items + kWarps - 1) / kWarps);
  return WithType(p.x_type, [&](auto x) {
    return WithType(p.y_type, [&](auto y) {
      L2NormKernel<decltype(x), decltype(y)><<<blocks, kWarps * 32, 0, stream>>>(p);
      return cudaGetLastError();
    });
  });
}

}  // namespace gdn::cuda
