#include "kernels/cuda/device/chunk_tile.cuh"
#include "kernels/cuda/ops/solve_tril.h"

namespace gdn::cuda {
namespace {

// A block takes a chunk and head, a thread column j of the inverse M. Row by row:
//   M_ij = [i = j] - sum over l < i of A_il * M_lj
__global__ void __launch_bounds__(kChunk) SolveTrilKernel(SolveTrilParams p) {
  __shared__ float a[kChunk][kChunk];
  __shared__ float m[kChunk][kChunk];
  const int j = threadIdx.x;
  const ChunkTile tile = TileOf(p.rows, p.chunks, blockIdx.x);
  const int64_t stride = int64_t{p.value_heads} * kChunk;
  const int64_t begin = (tile.begin * p.value_heads + blockIdx.y) * kChunk + j;
  for (int i = 0; i < tile.length; ++i) a[i][j] = p.a[begin + i * stride];
  __syncthreads();
  for (int i = 0; i < tile.length; ++i) {
    float sum = i == j ? 1.0f : 0.0f;
    for (int l = j; l < i; ++l) sum = fmaf(-a[i][l], m[l][j], sum);
    m[i][j] = sum;
    p.inverse[begin + i * stride] = sum;
  }
}

}  // namespace

cudaError_t SolveTril(const SolveTrilParams& p, cudaStream_t stream) {
  if (p.chunks.count == 0) return cudaSuccess;
  const dim3 grid(static_cast<unsigned>(p.chunks.count), p.value_heads);
  SolveTrilKernel<<<grid, kChunk, 0, stream>>>(p);
  return cudaGetLastError();
}

}  // namespace gdn::cuda
