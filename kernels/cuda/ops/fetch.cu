#include "kernels/cuda/device/launch.cuh"
#include "kernels/cuda/device/ptx.cuh"
#include "kernels/cuda/ops/fetch.h"

namespace gdn::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kAhead = FetchPiece::kMostBytes / sizeof(uint4) / kThreads;  // of a thread

// Two ways to the host and back, whatever there is to bring.
__global__ void __launch_bounds__(kThreads) FetchKernel(const FetchPiece* pieces, bool ahead) {
  __shared__ FetchPiece piece;
  GridDependencyWait();
  if (ahead) GridDependencyLaunch();
  if (threadIdx.x < 2) {
    reinterpret_cast<uint4*>(&piece)[threadIdx.x] =
        LoadStreaming(reinterpret_cast<const uint4*>(pieces + blockIdx.x) + threadIdx.x);
  }
  __syncthreads();
  const auto* from = static_cast<const uint4*>(piece.from);
  auto* to = static_cast<uint4*>(piece.to);
  const int packs = static_cast<int>(piece.bytes / sizeof(uint4));
  uint4 pack[kAhead];
#pragma unroll
  for (int i = 0; i < kAhead; ++i) {
    const int at = i * kThreads + static_cast<int>(threadIdx.x);
    if (at < packs) pack[i] = LoadStreaming(from + at);
  }
#pragma unroll
  for (int i = 0; i < kAhead; ++i) {
    const int at = i * kThreads + static_cast<int>(threadIdx.x);
    if (at < packs) to[at] = pack[i];
  }
  // What follows begins when all blocks have ended, which alone does not say that this is seen.
  if (!ahead) __threadfence();
}

}  // namespace

cudaError_t Fetch(const FetchPiece* pieces, size_t count, bool ahead, cudaStream_t stream) {
  if (count == 0) return cudaSuccess;
  return LaunchDependent(FetchKernel, static_cast<unsigned>(count), kThreads, 0, stream, pieces,
                         ahead);
}

}  // namespace gdn::cuda
