#include "kernels/cuda/device/launch.cuh"
#include "kernels/cuda/ops/projection_of_few.h"
#include "kernels/cuda/ops/projection_sums.cuh"

namespace gdn::cuda {
namespace {

using namespace projection;

constexpr int kAhead = 8;  // blocks a warp has in flight

// Every block of threads reads all of x, so more than one tile of tokens pays only where there are
// few of them.
constexpr int kMostTiles = 4;
constexpr int64_t kMostOutputs = 4096;  // for more than one tile

// Of the block's rows of w, what is not in flight from the beginning.
template <typename T>
__device__ void PrefetchRest(const ProjectionParams& p, int64_t first) {
  constexpr int kInFlight = kWarps * kAhead * kBlock;
  const int64_t row = first + threadIdx.x;
  if (threadIdx.x >= kOutputs || row >= p.out || p.in <= kInFlight) return;
  PrefetchBulk(static_cast<const T*>(p.w) + row * p.in + kInFlight,
               static_cast<unsigned>((p.in - kInFlight) * sizeof(T)));
}

// Of one tile the next block on the processor takes the same; of more there is no next one.
template <int kTiles>
__device__ uint4 LoadTokens(const void* x) {
  return kTiles == 1 ? *static_cast<const uint4*>(x) : LoadStreaming(x);
}

// Sixteen rows of w times all tokens, by a block of threads.
template <typename T, int kTiles>
__global__ void __launch_bounds__(kThreads, kTiles == 1 ? 2 : 1)
    ProjectionOfFewKernel(const __grid_constant__ ProjectionParams p,
                          const __grid_constant__ FinishRowsParams finish) {
  __shared__ WarpSums<kTiles> warp_sums;
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
  PrefetchRest<T>(p, first);
  const OutputPair pair;
  const Outputs<T> outputs(p, finish, pair);
  Sums<T, kTiles> sums;
  for (int64_t b = warp; b < blocks; b += kWarps * kAhead) {
    uint4 w0[kAhead], w1[kAhead], tokens[kAhead][kTiles];
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
      const int64_t block = b + i * kWarps;
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        const bool there = tile * kTile + group < p.tokens && block < blocks;
        const T* from = x + tile * kTile * p.x_stride + block * kBlock;
        tokens[i][tile] = there ? LoadTokens<kTiles>(from) : uint4{};
      }
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) sums.Add(w0[i], w1[i], tokens[i]);
  }
  warp_sums.Put(sums);
  __syncthreads();
  if (pair.token < kTiles * kTile) outputs.Store(first, pair.Total(warp_sums.x));
  outputs.Classify();
}

template <typename T, int kTiles>
cudaError_t Launch(const ProjectionParams& p, const FinishRowsParams& finish, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>((p.out + kOutputs - 1) / kOutputs));
  return LaunchDependent(ProjectionOfFewKernel<T, kTiles>, grid, kThreads, 0, stream, p, finish);
}

template <typename T>
cudaError_t LaunchTiles(const ProjectionParams& p, const FinishRowsParams& finish,
                        cudaStream_t stream) {
  if (p.tokens <= kTile) return Launch<T, 1>(p, finish, stream);
  if (p.tokens <= 2 * kTile) return Launch<T, 2>(p, finish, stream);
  return Launch<T, kMostTiles>(p, finish, stream);
}

bool Aligned(const void* data, int64_t stride) {
  return reinterpret_cast<uintptr_t>(data) % 16 == 0 && stride % 8 == 0;
}

}  // namespace

bool ProjectionOfFewTakes(const ProjectionParams& p) {
  const int tiles = p.out <= kMostOutputs ? kMostTiles : 1;
  return p.tokens <= tiles * kTile && p.io != DType::kFp32 && p.in % kBlock == 0 &&
         p.out % 2 == 0 && Aligned(p.x, p.x_stride) && Aligned(p.w, p.in) &&
         reinterpret_cast<uintptr_t>(p.y) % 4 == 0 && p.y_stride % 2 == 0;
}

cudaError_t ProjectionOfFew(const ProjectionParams& p, cudaStream_t stream) {
  return ProjectionOfFew(p, {}, stream);
}

cudaError_t ProjectionOfFew(const ProjectionParams& p, const FinishRowsParams& finish,
                            cudaStream_t stream) {
  if (!ProjectionOfFewTakes(p)) return cudaErrorInvalidValue;
  if (p.tokens == 0 || p.out == 0) return cudaSuccess;
  return p.io == DType::kBf16 ? LaunchTiles<__nv_bfloat16>(p, finish, stream)
                              : LaunchTiles<__half>(p, finish, stream);
}

}  // namespace gdn::cuda
