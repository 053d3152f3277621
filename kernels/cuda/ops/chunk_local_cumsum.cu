#include "kernels/cuda/ops/chunk_local_cumsum.h"

namespace gdn::cuda {
namespace {

constexpr int kColumns = 32;  // of a block
constexpr int kSegment = 8;   // tokens that a thread sums
constexpr int kSegments = kChunk / kSegment;

// A block takes kColumns columns of one chunk. Each thread sums its segment and adds the totals of
// the segments before, always in the same order:
//   gamma_i = sum of the earlier segments + sum of g_j over j <= i in the segment
__global__ void ChunkLocalCumsumKernel(ChunkLocalCumsumParams p, int64_t columns) {
  __shared__ float totals[kSegments][kColumns];
  const int64_t row = p.chunks.chunk_indices[2 * int64_t{blockIdx.x}];
  const int64_t chunk = p.chunks.chunk_indices[2 * int64_t{blockIdx.x} + 1];
  const int64_t begin = p.rows.offsets[row] + chunk * kChunk + threadIdx.y * kSegment;
  const int64_t left = p.rows.offsets[row + 1] - begin;
  const int64_t column = int64_t{blockIdx.y} * kColumns + threadIdx.x;
  const int64_t at = begin * columns + column;
  const int count = column < columns ? static_cast<int>(min(left, int64_t{kSegment})) : 0;
  float sums[kSegment];
#pragma unroll
  for (int i = 0; i < kSegment; ++i) sums[i] = i < count ? p.g[at + i * columns] : 0.0f;
#pragma unroll
  for (int i = 1; i < kSegment; ++i) sums[i] += sums[i - 1];
  totals[threadIdx.y][threadIdx.x] = sums[kSegment - 1];
  __syncthreads();
  float before = 0.0f;
  for (int segment = 0; segment < threadIdx.y; ++segment) before += totals[segment][threadIdx.x];
#pragma unroll
  for (int i = 0; i < kSegment; ++i) {
    if (i < count) p.gamma[at + i * columns] = before + sums[i];
  }
}

}  // namespace

cudaError_t ChunkLocalCumsum(const ChunkLocalCumsumParams& p, cudaStream_t stream) {
  if (p.heads < 0 || p.dim < 0 || p.chunks.count < 0) return cudaErrorInvalidValue;
  const int64_t columns = int64_t{p.heads} * p.dim;
  if (p.chunks.count >= int64_t{1} << 31 || columns > int64_t{65535} * kColumns) {
    return cudaErrorInvalidValue;
  }
  if (p.chunks.count == 0 || columns == 0) return cudaSuccess;
  const dim3 blocks(static_cast<unsigned>(p.chunks.count),
                    static_cast<unsigned>((columns + kColumns - 1) / kColumns));
  ChunkLocalCumsumKernel<<<blocks, dim3(kColumns, kSegments), 0, stream>>>(p, columns);
  return cudaGetLastError();
}

}  // namespace gdn::cuda
