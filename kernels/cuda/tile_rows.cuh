// Rows of q, k and v, 64 of 128 elements of 16 bits, on their way into shared memory (tile.cuh).
#pragma once

#include "kernels/cuda/dtype.cuh"
#include "kernels/cuda/pointwise.cuh"
#include "kernels/cuda/tile.cuh"
#include "kernels/ops/operands.h"

namespace gdn::cuda {

// Begins to copy rows 0..length-1, `stride` elements apart; the others become zeros.
template <int kThreads, typename T>
__device__ __forceinline__ void LoadRows(uint32_t to, const T* from, int64_t stride, int length) {
  constexpr int kPieces = kRowBytes / 16;
#pragma unroll
  for (int e = threadIdx.x; e < kChunk * kPieces; e += kThreads) {
    const int row = e / kPieces;
    const int piece = e % kPieces;
    const bool valid = row < length;
    CopyAsync16(PieceAddress(to, row, piece), from + (valid ? row : 0) * stride + piece * 8, valid);
  }
}

// rsqrt(sum of x² + eps) of row `row`, by the 16 lanes of a half warp; `x` is the lane's piece.
template <typename T>
__device__ __forceinline__ float RowScale(uint4 x) {
  const uint32_t pairs[4] = {x.x, x.y, x.z, x.w};
  float sum = 0.0f;
#pragma unroll
  for (const uint32_t pair : pairs) {
    const float2 value = Unpack(pair, T{});
    sum = fmaf(value.x, value.x, fmaf(value.y, value.y, sum));
  }
#pragma unroll
  for (int step = 8; step > 0; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
  return InverseRoot(sum + kL2NormEps);
}

__device__ __forceinline__ uint4* PieceOfRow(uint32_t rows, int row) {
  return static_cast<uint4*>(__cvta_shared_to_generic(PieceAddress(rows, row, threadIdx.x % 16)));
}

// x *= rsqrt(sum of x² + eps) for 16 rows, by one warp.
template <typename T>
__device__ __forceinline__ void NormalizeRows(uint32_t rows, int first) {
#pragma unroll
  for (int i = threadIdx.x % 32 / 16; i < kTileDim; i += 2) {
    uint4* x = PieceOfRow(rows, first + i);
    const float scale = RowScale<T>(*x);
    const auto scaled = [&](uint32_t pair) {
      const float2 value = Unpack(pair, T{});
      return PackPair<T>(value.x * scale, value.y * scale);
    };
    *x = {scaled(x->x), scaled(x->y), scaled(x->z), scaled(x->w)};
  }
}

// The factors of 16 rows into `scales`, by one warp.
template <typename T>
__device__ __forceinline__ void RowScales(uint32_t rows, int first, float* scales) {
#pragma unroll
  for (int i = threadIdx.x % 32 / 16; i < kTileDim; i += 2) {
    const float scale = RowScale<T>(*PieceOfRow(rows, first + i));
    if (threadIdx.x % 16 == 0) scales[first + i] = scale;
  }
}

}  // namespace gdn::cuda
