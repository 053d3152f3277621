#include "kernels/cuda/ops/chunk_indices.h"
#include "kernels/ops/operands.h"

namespace gdn::cuda {
namespace {

constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / 32;

// Sum of x over this thread and the lanes below it.
__device__ int64_t WarpPrefix(int64_t x) {
  const int lane = threadIdx.x % 32;
  for (int step = 1; step < 32; step *= 2) {
    const int64_t below = __shfl_up_sync(~0u, x, step);
    if (lane >= step) x += below;
  }
  return x;
}

// Sum of x over this thread and those before it in the block; `total` is that of all threads.
__device__ int64_t BlockPrefix(int64_t x, int64_t& total) {
  __shared__ int64_t warps[kWarps];
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  x = WarpPrefix(x);
  if (lane == 31) warps[warp] = x;
  __syncthreads();
  if (warp == 0) warps[lane] = WarpPrefix(warps[lane]);
  __syncthreads();
  total = warps[kWarps - 1];
  if (warp > 0) x += warps[warp - 1];
  __syncthreads();  // before the next call writes `warps`
  return x;
}

// The row of chunk `chunk`: the last one whose chunks begin at or before it.
__device__ int64_t RowOf(const ChunkIndicesParams& p, int64_t chunk) {
  int64_t low = 0;
  int64_t high = p.rows;
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    (p.chunk_offsets[middle] <= chunk ? low : high) = middle;
  }
  return low;
}

// One block, which takes kThreads rows at a time and then kThreads chunks at a time.
__global__ void __launch_bounds__(kThreads) ChunkIndicesKernel(ChunkIndicesParams p) {
  int64_t next = 0;
  for (int64_t begin = 0; begin < p.rows; begin += kThreads) {
    const int64_t row = begin + threadIdx.x;
    const int64_t length = row < p.rows ? p.offsets[row + 1] - p.offsets[row] : 0;
    int64_t total;
    const int64_t end = next + BlockPrefix((length + kChunk - 1) / kChunk, total);
    if (row < p.rows) {
      if (p.lengths != nullptr) p.lengths[row] = length;
      p.chunk_offsets[row + 1] = end;
    }
    next += total;
  }
  if (threadIdx.x == 0) p.chunk_offsets[0] = 0;
  if (p.chunk_indices == nullptr) return;
  __syncthreads();
  for (int64_t chunk = threadIdx.x; chunk < next; chunk += kThreads) {
    const int64_t row = RowOf(p, chunk);
    p.chunk_indices[2 * chunk] = row;
    p.chunk_indices[2 * chunk + 1] = chunk - p.chunk_offsets[row];
  }
}

}  // namespace

cudaError_t ChunkIndices(const ChunkIndicesParams& p, cudaStream_t stream) {
  if (p.rows < 0) return cudaErrorInvalidValue;
  ChunkIndicesKernel<<<1, kThreads, 0, stream>>>(p);
  return cudaGetLastError();
}

}  // namespace gdn::cuda
