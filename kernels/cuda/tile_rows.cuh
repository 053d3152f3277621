// Rows of q, k and v, 64 of 128 elements of 16 bits, on their way into shared memory (tile.cuh).
#pragma once

#include "kernels/cuda/dtype.cuh"
#include "kernels/cuda/pointwise.cuh"
#include "kernels/cuda/tile.cuh"
#include "kernels/ops/operands.h"

namespace gdn::cuda {

// Begins to copy rows 0..length-1, `stride` elements apart, by kThreads threads; the others become
// zeros.
template <int kThreads, typename T>
__device__ __forceinline__ void LoadRows(uint32_t to, const T* from, int64_t stride, int length) {
  constexpr int kPieces = kRowBytes / 16;
#pragma unroll
  for (int e = threadIdx.x % kThreads; e < kChunk * kPieces; e += kThreads) {
    const int row = e / kPieces;
    const int piece = e % kPieces;
    const bool valid = row < length;
    CopyAsync16(PieceAddress(to, row, piece), from + (valid ? row : 0) * stride + piece * 8, valid);
  }
}

// The lane's piece of row `row`; half a warp takes a row.
__device__ __forceinline__ uint4* PieceOfRow(uint32_t rows, int row) {
  return static_cast<uint4*>(__cvta_shared_to_generic(PieceAddress(rows, row, threadIdx.x % 16)));
}

// rsqrt(sum of x² + eps) of rows first + h, first + h + 2, … first + h + 14, by the half h of a
// warp, all at once to wait for each exchange only once.
template <typename T>
__device__ __forceinline__ void HalfWarpScales(uint32_t rows, int first,
                                               float (&scales)[kTileDim / 2]) {
  first += threadIdx.x % 32 / 16;
#pragma unroll
  for (int i = 0; i < kTileDim / 2; ++i) {
    const uint4 x = *PieceOfRow(rows, first + 2 * i);
    const uint32_t pairs[4] = {x.x, x.y, x.z, x.w};
    scales[i] = 0.0f;
#pragma unroll
    for (const uint32_t pair : pairs) {
      const float2 value = Unpack(pair, T{});
      scales[i] = fmaf(value.x, value.x, fmaf(value.y, value.y, scales[i]));
    }
  }
#pragma unroll
  for (int step = 8; step > 0; step /= 2) {
#pragma unroll
    for (float& sum : scales) sum += __shfl_xor_sync(~0u, sum, step);
  }
#pragma unroll
  for (float& sum : scales) sum = InverseRoot(sum + kL2NormEps);
}

// x *= rsqrt(sum of x² + eps) for 16 rows, by one warp.
template <typename T>
__device__ __forceinline__ void NormalizeRows(uint32_t rows, int first) {
  float scales[kTileDim / 2];
  HalfWarpScales<T>(rows, first, scales);
#pragma unroll
  for (int i = 0; i < kTileDim / 2; ++i) {
    uint4* x = PieceOfRow(rows, first + threadIdx.x % 32 / 16 + 2 * i);
    const auto scaled = [&](uint32_t pair) {
      const float2 value = Unpack(pair, T{});
      return PackPair<T>(value.x * scales[i], value.y * scales[i]);
    };
    *x = {scaled(x->x), scaled(x->y), scaled(x->z), scaled(x->w)};
  }
}

// The factors of 16 rows into `scales`, by one warp.
template <typename T>
__device__ __forceinline__ void RowScales(uint32_t rows, int first, float* scales) {
  float mine[kTileDim / 2];
  HalfWarpScales<T>(rows, first, mine);
  if (threadIdx.x % 16 != 0) return;
#pragma unroll
  for (int i = 0; i < kTileDim / 2; ++i) scales[first + threadIdx.x % 32 / 16 + 2 * i] = mine[i];
}

}  // namespace gdn::cuda
