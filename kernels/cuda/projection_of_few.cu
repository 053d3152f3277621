#include "kernels/cuda/dtype.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/projection_of_few.h"
#include "kernels/cuda/ptx.cuh"

namespace gdn::cuda {
namespace {

constexpr int kTile = 8;      // tokens that the tensor cores take at once
constexpr int kOutputs = 16;  // of a block
constexpr int kWarps = 8;     // share `in`
constexpr int kBlock = 32;    // of `in`: what a warp multiplies at a time
constexpr int kAhead = 8;     // blocks a warp has in flight

// Every block reads all of x, so more than one tile of tokens pays only where there are few blocks.
constexpr int kMostTiles = 4;
constexpr int64_t kMostOutputs = 4096;  // for more than one tile

// Sixteen rows of w times all tokens. Within a block of `in` the tensor cores see its elements in
// another order, the same for w and x: eight neighbours are one thread's, so that it loads them at
// once.
template <typename T, int kTiles>
__global__ void __launch_bounds__(kWarps * 32, kTiles == 1 ? 2 : 1)
    ProjectionOfFewKernel(const __grid_constant__ ProjectionParams p) {
  constexpr int kTokens = kTiles * kTile;
  constexpr int kAtOnce = kTiles == 1 ? kAhead : kAhead / kTiles;  // blocks of x in flight
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
  float sum[kTiles][4] = {};
  for (int64_t b = warp; b < blocks; b += kWarps * kAhead) {
    uint4 w0[kAhead], w1[kAhead];
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
    for (int begin = 0; begin < kAhead; begin += kAtOnce) {
      uint4 tokens[kAtOnce][kTiles];
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const int64_t block = b + (begin + i) * kWarps;
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
          const bool there = tile * kTile + group < p.tokens && block < blocks;
          const T* from = x + tile * kTile * p.x_stride + block * kBlock;
          tokens[i][tile] = there ? *reinterpret_cast<const uint4*>(from) : uint4{};
        }
      }
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const uint4 a = w0[begin + i], c = w1[begin + i];
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
          const uint4 t = tokens[i][tile];
          Mma<T>(sum[tile], a.x, c.x, a.y, c.y, t.x, t.y);
          Mma<T>(sum[tile], a.z, c.z, a.w, c.w, t.z, t.w);
        }
      }
    }
  }
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      partial[warp][group + i / 2 * 8][tile * kTile + part * 2 + i % 2] = sum[tile][i];
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < kOutputs * kTokens; i += kWarps * 32) {
    const int token = i / kOutputs, output = i % kOutputs;
    if (token >= p.tokens || first + output >= p.out) continue;
    float y = 0.0f;
    for (int j = 0; j < kWarps; ++j) y += partial[j][output][token];
    static_cast<T*>(p.y)[token * p.y_stride + first + output] = FromFloat<T>(y);
  }
}

template <typename T, int kTiles>
cudaError_t Launch(const ProjectionParams& p, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>((p.out + kOutputs - 1) / kOutputs));
  return LaunchDependent(ProjectionOfFewKernel<T, kTiles>, grid, kWarps * 32, 0, stream, p);
}

template <typename T>
cudaError_t LaunchTiles(const ProjectionParams& p, cudaStream_t stream) {
  if (p.tokens <= kTile) return Launch<T, 1>(p, stream);
  if (p.tokens <= 2 * kTile) return Launch<T, 2>(p, stream);
  return Launch<T, kMostTiles>(p, stream);
}

bool Aligned(const void* data, int64_t stride) {
  return reinterpret_cast<uintptr_t>(data) % 16 == 0 && stride % 8 == 0;
}

}  // namespace

bool ProjectionOfFewTakes(const ProjectionParams& p) {
  const int tiles = p.out <= kMostOutputs ? kMostTiles : 1;
  return p.tokens <= tiles * kTile && p.io != DType::kFp32 && p.in % kBlock == 0 &&
         Aligned(p.x, p.x_stride) && Aligned(p.w, p.in);
}

cudaError_t ProjectionOfFew(const ProjectionParams& p, cudaStream_t stream) {
  if (!ProjectionOfFewTakes(p)) return cudaErrorInvalidValue;
  if (p.tokens == 0 || p.out == 0) return cudaSuccess;
  return p.io == DType::kBf16 ? LaunchTiles<__nv_bfloat16>(p, stream)
                              : LaunchTiles<__half>(p, stream);
}

}  // namespace gdn::cuda
