// The products of 64 tokens' keys and queries among themselves, by a warpgroup: a warp has 16 rows,
// of which it looks only at the tiles of 16 columns up to the diagonal's.
#pragma once

#include "kernels/cuda/device/panel.cuh"
#include "kernels/cuda/device/warpgroup.cuh"
#include "kernels/cuda/prefill/chunk_sm90.h"

namespace gdn::cuda {

using Square = float[kChunk / 2];  // 64 x 64 sums of a warpgroup

// Begins d = a bᵀ of rows of 128 elements, as they come, in panels.
template <typename T>
__device__ __forceinline__ void MultiplyRows(const uint4* a_rows, const uint4* b_rows, Square& d) {
  const uint64_t a = RowsAreN(SharedAddress(a_rows));
  const uint64_t b = RowsAreN(SharedAddress(b_rows));
  const auto step = [](int c) { return c / 4 * (kPanelBytes / 16) + c % 4 * 2; };
  WarpgroupFence();
  WarpgroupMmaShared<T, false>(d, a, b);
#pragma unroll
  for (int c = 1; c < kSm90Dim / kTileDim; ++c) WarpgroupMmaShared<T>(d, a + step(c), b + step(c));
  WarpgroupCommit();
}

// The diagonal's tile of the warp's rows.
__device__ __forceinline__ TileSum DiagonalOf(const Square& d, int warp) {
  TileSum own;
#pragma unroll
  for (int j = 0; j < kChunk / kTileDim; ++j) {
    if (j == warp) own = SumOf(d, j);
  }
  return own;
}

// The product of a row of two panels with itself, by two lanes 16 apart, each of which takes a
// panel's part. Not by the tensor cores: there it would wait for the products of rows.
template <typename T>
__device__ __forceinline__ float SquareOfRow(const uint4* rows, int row) {
  const unsigned panel = threadIdx.x % 32 / kTileDim;
  const unsigned first = row % 8;  // piece 0 of the row, as panels permute them
  const uint32_t from =
      SharedAddress(rows + panel * kPanelPieces + row * (kPanelRowBytes / 16) + first);
  float even = 0.0f;
  float odd = 0.0f;
#pragma unroll
  for (int piece = 0; piece < 8; ++piece) {
    const uint4 x = LoadSharedPiece(from ^ piece * 16);
    for (const uint32_t pair : {x.x, x.y, x.z, x.w}) {
      const float2 value = Unpack(pair, T{});
      even = fmaf(value.x, value.x, even);
      odd = fmaf(value.y, value.y, odd);
    }
  }
  const float sum = even + odd;
  return sum + __shfl_xor_sync(~0u, sum, kTileDim);
}

// Zero above the diagonal of a tile.
__device__ __forceinline__ TileSum Lower(TileSum m) {
  const int below = static_cast<int>(threadIdx.x % 32 / 4) -
                    static_cast<int>(threadIdx.x % 4) * 2;  // row - column
#pragma unroll
  for (int e = 0; e < 2; ++e) {
    if (below < e) m.left[e] = m.right[2 + e] = 0.0f;
    m.right[e] = 0.0f;
  }
  return m;
}

// Calls f(e) where the lane has the diagonal of a tile: in element e of left, and in element 2 + e
// of right eight rows below.
template <typename F>
__device__ __forceinline__ void OnDiagonal(F&& f) {
  const int row = threadIdx.x % 32 / 4;
#pragma unroll
  for (int e = 0; e < 2; ++e) {
    if (row == threadIdx.x % 4 * 2 + e) f(e);
  }
}

}  // namespace gdn::cuda
