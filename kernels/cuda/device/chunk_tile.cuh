// Where the tokens of a chunk lie, and tiles of rows in shared memory as fp32.
#pragma once

#include "kernels/cuda/device/dtype.cuh"
#include "kernels/ops/chunk_indices.h"
#include "kernels/ops/operands.h"

namespace gdn::cuda {

struct ChunkTile {
  int64_t row;
  int64_t begin;  // first token
  int length;     // tokens, 1 to kChunk
};

__device__ __forceinline__ ChunkTile TileOf(const Rows& rows, const Chunks& chunks, int64_t chunk) {
  const int64_t row = chunks.chunk_indices[2 * chunk];
  const int64_t begin = rows.offsets[row] + chunks.chunk_indices[2 * chunk + 1] * kChunk;
  const int64_t left = rows.offsets[row + 1] - begin;
  return {row, begin, static_cast<int>(left < kChunk ? left : kChunk)};
}

// `count` rows of `dim` elements, `stride` apart, into to[count][dim + 1]. The odd
// row length keeps a column's elements in different banks.
template <typename T>
__device__ void LoadTile(const T* from, int64_t stride, int count, int dim, float* to) {
  for (int e = threadIdx.x; e < count * dim; e += blockDim.x) {
    const int i = e / dim;
    const int c = e % dim;
    to[i * (dim + 1) + c] = ToFloat(from[i * stride + c]);
  }
}

// sum over c < dim of a[c] * b[c]
__device__ __forceinline__ float Dot(const float* a, const float* b, int dim) {
  float sum = 0.0f;
  for (int c = 0; c < dim; ++c) sum = fmaf(a[c], b[c], sum);
  return sum;
}

}  // namespace gdn::cuda
