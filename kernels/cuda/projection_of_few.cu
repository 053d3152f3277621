#include "kernels/cuda/dtype.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/projection_of_few.h"
#include "kernels/cuda/ptx.cuh"

namespace gdn::cuda {
namespace {

constexpr int kTokens = 8;    // as wide as the tensor cores' product
constexpr int kOutputs = 16;  // of a block
constexpr int kWarps = 8;     // share `in`
constexpr int kBlock = 32;    // of `in`: what a warp multiplies at a time
constexpr int kAhead = 8;     // blocks a warp has in flight

// Sixteen rows of w times all tokens. Within a block of `in` the tensor cores see its elements in
// another order, the same for w and x: eight neighbours are one thread's, so that it loads them at
// once.
template <typename T>
__global__ void __launch_bounds__(kWarps * 32, 2)
    ProjectionOfFewKernel(const __grid_constant__ ProjectionParams p) {
  __shared__ float partial[kWarps][kOutputs][kTokens];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int group = lane / 4, part = lane % 4;
  const int64_t first = int64_t{blockIdx.x} * kOutputs;
  const auto row = [&](int i) {
    const int64_t n = first + group + i;
    return static_cast<const T*>(p.w) + (n < p.out ? n : p.out - 1) * p.in + part * 8;
  };
  const T* low = row(0);
  const T* high = row(8);
  const T* x = static_cast<const T*>(p.x) + group * p.x_stride + part * 8;
  const int64_t blocks = p.in / kBlock;
  float sum[4] = {};
  for (int64_t b = warp; b < blocks; b += kWarps * kAhead) {
    uint4 w0[kAhead], w1[kAhead], tokens[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int64_t at = (b + i * kWarps) * kBlock;
      const bool there = b + i * kWarps < blocks;
      w0[i] = there ? LoadStreaming(low + at) : uint4{};
      w1[i] = there ? LoadStreaming(high + at) : uint4{};
    }
    if (b == warp) {
      GridDependencyWait();
      GridDependencyLaunch();
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int64_t at = (b + i * kWarps) * kBlock;
      const bool there = group < p.tokens && b + i * kWarps < blocks;
      tokens[i] = there ? *reinterpret_cast<const uint4*>(x + at) : uint4{};
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      Mma<T>(sum, w0[i].x, w1[i].x, w0[i].y, w1[i].y, tokens[i].x, tokens[i].y);
      Mma<T>(sum, w0[i].z, w1[i].z, w0[i].w, w1[i].w, tokens[i].z, tokens[i].w);
    }
  }
  for (int i = 0; i < 4; ++i) partial[warp][group + i / 2 * 8][part * 2 + i % 2] = sum[i];
  __syncthreads();
  const int token = threadIdx.x / kOutputs, output = threadIdx.x % kOutputs;
  if (token >= p.tokens || first + output >= p.out) return;
  float y = 0.0f;
  for (int i = 0; i < kWarps; ++i) y += partial[i][output][token];
  static_cast<T*>(p.y)[token * p.y_stride + first + output] = FromFloat<T>(y);
}

bool Aligned(const void* data, int64_t stride) {
  return reinterpret_cast<uintptr_t>(data) % 16 == 0 && stride % 8 == 0;
}

}  // namespace

bool ProjectionOfFewTakes(const ProjectionParams& p) {
  return p.tokens <= kTokens && p.io != DType::kFp32 && p.in % kBlock == 0 &&
         Aligned(p.x, p.x_stride) && Aligned(p.w, p.in);
}

cudaError_t ProjectionOfFew(const ProjectionParams& p, cudaStream_t stream) {
  if (!ProjectionOfFewTakes(p)) return cudaErrorInvalidValue;
  if (p.tokens == 0 || p.out == 0) return cudaSuccess;
  const dim3 grid(static_cast<unsigned>((p.out + kOutputs - 1) / kOutputs));
  return p.io == DType::kBf16
             ? LaunchDependent(ProjectionOfFewKernel<__nv_bfloat16>, grid, kWarps * 32, 0, stream,
                               p)
             : LaunchDependent(ProjectionOfFewKernel<__half>, grid, kWarps * 32, 0, stream, p);
}

}  // namespace gdn::cuda
