// The inverse of a unit lower triangular 64 x 64 matrix in shared memory, by 128 threads.
#pragma once

#include "kernels/cuda/tile.cuh"

namespace gdn::cuda {

// Floats from row to row: whole 16 bytes, and rows 0..3 lie 8 banks apart.
inline constexpr int kLowerStride = 72;

// (I + A)^-1 of a 16 x 16 diagonal block by one warp, in place; a lane of each half takes column j.
//   M_ij = [i = j] - sum over l < i of A_il * M_lj
// Only A's strict lower triangle is read; the inverse is written whole.
__device__ __forceinline__ void InvertDiagonalTile(float* a) {
  const int lane = threadIdx.x % 32;
  const int j = lane % kTileDim;
  const uint32_t rows = SharedAddress(a);
  float m[kTileDim];
#pragma unroll
  for (int i = 0; i < kTileDim; ++i) {
    float sum[4] = {i == j ? 1.0f : 0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
    for (int l = 0; l < i; l += 4) {
      const float4 row = LoadSharedFloats(rows + (i * kLowerStride + l) * sizeof(float));
      sum[0] = fmaf(-row.x, m[l], sum[0]);
      if (l + 1 < i) sum[1] = fmaf(-row.y, m[l + 1], sum[1]);
      if (l + 2 < i) sum[2] = fmaf(-row.z, m[l + 2], sum[2]);
      if (l + 3 < i) sum[3] = fmaf(-row.w, m[l + 3], sum[3]);
    }
    m[i] = (sum[0] + sum[1]) + (sum[2] + sum[3]);
  }
  __syncwarp();
#pragma unroll
  for (int i = 0; i < kTileDim; ++i) {
    if (lane < kTileDim) a[i * kLowerStride + j] = m[i];
  }
}

// The tile of fp32 at `a` in memory.
__device__ __forceinline__ TileSum LoadSum(const float* a) {
  const int lane = threadIdx.x % 32;
  const float* p = a + lane / 4 * kLowerStride + lane % 4 * 2;
  const float2 x = *reinterpret_cast<const float2*>(p);
  const float2 y = *reinterpret_cast<const float2*>(p + 8);
  const float2 z = *reinterpret_cast<const float2*>(p + 8 * kLowerStride);
  const float2 w = *reinterpret_cast<const float2*>(p + 8 * kLowerStride + 8);
  return {{x.x, x.y, z.x, z.y}, {y.x, y.y, w.x, w.y}};
}

// The transpose of the tile at `a` in memory.
__device__ __forceinline__ TileSum LoadSumTransposed(const float* a) {
  const int lane = threadIdx.x % 32;
  const float* p = a + lane % 4 * 2 * kLowerStride + lane / 4;
  const float* q = p + 8 * kLowerStride;
  return {{p[0], p[kLowerStride], p[8], p[kLowerStride + 8]},
          {q[0], q[kLowerStride], q[8], q[kLowerStride + 8]}};
}

__device__ __forceinline__ TileSum Rounded(TileSum s) {
#pragma unroll
  for (int e = 0; e < 4; ++e) {
    s.left[e] = RoundToTf32(s.left[e]);
    s.right[e] = RoundToTf32(s.right[e]);
  }
  return s;
}

// sum += a * bᵀ of rounded tiles. A thread's columns of a tile, 2t and 2t + 1 of eight, are k = t
// and t + 4 here, for a and b alike.
__device__ __forceinline__ void MultiplyAdd(TileSum& sum, const TileSum& a, const TileSum& b) {
  MmaTf32(sum.left, a.left[0], a.left[2], a.left[1], a.left[3], b.left[0], b.left[1]);
  MmaTf32(sum.right, a.left[0], a.left[2], a.left[1], a.left[3], b.left[2], b.left[3]);
  MmaTf32(sum.left, a.right[0], a.right[2], a.right[1], a.right[3], b.right[0], b.right[1]);
  MmaTf32(sum.right, a.right[0], a.right[2], a.right[1], a.right[3], b.right[2], b.right[3]);
}

// With blocks of kSize,
//   [I + A11        ]^-1   [M11      ]
//   [A21     I + A22]    = [M21   M22],  M21ᵀ = -(M11ᵀ A21ᵀ) M22ᵀ
// so that each product's sums are the next one's operand. `a` holds M11, A21 and M22; a warp takes
// rows j.. and columns i.. of -M21ᵀ. Tiles above the diagonal of M11 and M22 are not read.
template <int kSize>
__device__ __forceinline__ TileSum MultiplyBlocks(const float* a, int i, int j) {
  constexpr int kTiles = kSize / kTileDim;
  const float* a21 = a + kSize * kLowerStride;
  const float* a22 = a21 + kSize;
  TileSum product[kTiles];
#pragma unroll
  for (int l = 0; l < kSize; l += kTileDim) {
    if (l < j) continue;
    const TileSum m11 = Rounded(LoadSumTransposed(a + l * kLowerStride + j));
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      MultiplyAdd(product[n], m11, Rounded(LoadSum(a21 + n * kTileDim * kLowerStride + l)));
    }
  }
  TileSum m21t;
#pragma unroll
  for (int n = 0; n < kTiles; ++n) {
    if (n * kTileDim > i) continue;
    MultiplyAdd(m21t, Rounded(product[n]), Rounded(LoadSum(a22 + i * kLowerStride + n * kTileDim)));
  }
  return m21t;
}

// Writes M21 where `to` is its element (i, j).
__device__ __forceinline__ void StoreNegatedTransposed(const TileSum& m21t, float* to) {
  const int lane = threadIdx.x % 32;
  float* p = to + lane % 4 * 2 * kLowerStride + lane / 4;
#pragma unroll
  for (int e = 0; e < 4; ++e) {
    float* q = p + e % 2 * kLowerStride + e / 2 * 8;
    q[0] = -m21t.left[e];
    q[8 * kLowerStride] = -m21t.right[e];
  }
}

// In place, by four warps, this one `warp`, that `sync()` brings together; ends with that. Nothing
// above the diagonal's tiles is read or written.
template <typename F>
__device__ __forceinline__ void InvertUnitLower(float* a, int warp, F&& sync) {
  constexpr int kHalf = 32;
  const auto diagonal = [&](int row) { return a + row * (kLowerStride + 1); };
  InvertDiagonalTile(diagonal(warp * kTileDim));
  sync();
  if (warp < 2) {
    float* half = diagonal(warp * kHalf);
    const TileSum m21t = MultiplyBlocks<kTileDim>(half, 0, 0);
    __syncwarp();
    StoreNegatedTransposed(m21t, half + kTileDim * kLowerStride);
  }
  sync();
  const int j = warp % 2 * kTileDim;
  const int i = warp / 2 * kTileDim;
  const TileSum m21t = MultiplyBlocks<kHalf>(a, i, j);
  sync();
  StoreNegatedTransposed(m21t, a + (kHalf + i) * kLowerStride + j);
  sync();
}

}  // namespace gdn::cuda
