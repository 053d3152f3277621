// The inverse of a unit lower triangular 64 x 64 matrix by four warps, its 16 x 16 tiles on and
// below the diagonal in shared memory as fp32.
#pragma once

#include "kernels/cuda/device/tile.cuh"

namespace gdn::cuda {

inline constexpr int kTilesAcross = 4;
// Floats from row to row of a tile: whole 16 bytes, and rows 0..3 lie 24 banks apart.
inline constexpr int kTileStride = 24;
inline constexpr int kTileFloats = kTileDim * kTileStride;
inline constexpr int kLowerFloats = kTilesAcross * (kTilesAcross + 1) / 2 * kTileFloats;

// Tile (i, j), j <= i.
__device__ __forceinline__ float* LowerTile(float* tiles, int i, int j) {
  return tiles + (i * (i + 1) / 2 + j) * kTileFloats;
}

__device__ __forceinline__ void StoreSum(const TileSum& s, float* tile) {
  const int lane = threadIdx.x % 32;
  float* p = tile + lane / 4 * kTileStride + lane % 4 * 2;
  *reinterpret_cast<float2*>(p) = {s.left[0], s.left[1]};
  *reinterpret_cast<float2*>(p + 8) = {s.right[0], s.right[1]};
  *reinterpret_cast<float2*>(p + 8 * kTileStride) = {s.left[2], s.left[3]};
  *reinterpret_cast<float2*>(p + 8 * kTileStride + 8) = {s.right[2], s.right[3]};
}

__device__ __forceinline__ TileSum LoadSum(const float* tile) {
  const int lane = threadIdx.x % 32;
  const float* p = tile + lane / 4 * kTileStride + lane % 4 * 2;
  const float2 x = *reinterpret_cast<const float2*>(p);
  const float2 y = *reinterpret_cast<const float2*>(p + 8);
  const float2 z = *reinterpret_cast<const float2*>(p + 8 * kTileStride);
  const float2 w = *reinterpret_cast<const float2*>(p + 8 * kTileStride + 8);
  return {{x.x, x.y, z.x, z.y}, {y.x, y.y, w.x, w.y}};
}

__device__ __forceinline__ TileSum LoadSumTransposed(const float* tile) {
  const int lane = threadIdx.x % 32;
  const float* p = tile + lane % 4 * 2 * kTileStride + lane / 4;
  const float* q = p + 8 * kTileStride;
  return {{p[0], p[kTileStride], p[8], p[kTileStride + 8]},
          {q[0], q[kTileStride], q[8], q[kTileStride + 8]}};
}

// M = (I - N)^-1 by one warp in N's place, of which only the strict lower triangle is read; M is
// written whole. A lane of each half takes column j.
//   M_ij = [i = j] + sum over l < i of N_il * M_lj
// A row of M goes into all rows below at once, so that only one sum waits for it.
__device__ __forceinline__ void InvertTile(float* tile) {
  const int lane = threadIdx.x % 32;
  const int j = lane % kTileDim;
  const uint32_t rows = SharedAddress(tile);
  float m[kTileDim];
#pragma unroll
  for (int i = 0; i < kTileDim; ++i) m[i] = i == j ? 1.0f : 0.0f;
#pragma unroll
  for (int l = 0; l < kTileDim; l += 4) {
#pragma unroll
    for (int i = l + 1; i < kTileDim; ++i) {
      const float4 n = LoadSharedFloats(rows + (i * kTileStride + l) * sizeof(float));
      m[i] = fmaf(n.x, m[l], m[i]);
      if (l + 1 < i) m[i] = fmaf(n.y, m[l + 1], m[i]);
      if (l + 2 < i) m[i] = fmaf(n.z, m[l + 2], m[i]);
      if (l + 3 < i) m[i] = fmaf(n.w, m[l + 3], m[i]);
    }
  }
  __syncwarp();
#pragma unroll
  for (int i = 0; i < kTileDim; ++i) {
    if (lane < kTileDim) tile[i * kTileStride + j] = m[i];
  }
}

// Columns 16j.. of (I - N)^-1, transposed, as tiles j.. by one warp. `tiles` holds N below the
// diagonal's tiles, rounded, and these inverted, M_i:
//   T_jj = M_j;  T_ij = M_i * sum over j <= l < i of N_il * T_lj
// Transposed, each product's sums are the next one's operand.
template <int j>
__device__ __forceinline__ void InverseColumns(float* tiles, TileSum (&t)[kTilesAcross - j]) {
  TileSum sums[kTilesAcross - j];
  t[0] = LoadSumTransposed(LowerTile(tiles, j, j));
#pragma unroll
  for (int l = j; l < kTilesAcross - 1; ++l) {
    const TileSum left = Rounded(t[l - j]);
#pragma unroll
    for (int i = l + 1; i < kTilesAcross; ++i) {
      MultiplyAdd(sums[i - j], left, LoadSum(LowerTile(tiles, i, l)));
    }
    t[l + 1 - j] = {};
    MultiplyAdd(t[l + 1 - j], Rounded(sums[l + 1 - j]),
                Rounded(LoadSum(LowerTile(tiles, l + 1, l + 1))));
  }
}

}  // namespace gdn::cuda
