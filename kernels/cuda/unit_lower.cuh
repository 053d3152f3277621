// The inverse of a unit lower triangular 64 x 64 matrix in shared memory, by a block of 128
// threads.
#pragma once

#include "kernels/cuda/tile.cuh"

namespace gdn::cuda {

// Floats from row to row: whole 16 bytes, and rows 0..3 lie 8 banks apart.
inline constexpr int kLowerStride = 72;

// (I + A)^-1 of a 32 x 32 diagonal block by one warp, in place; a lane takes column j.
//   M_ij = [i = j] - sum over l < i of A_il * M_lj
// Only A's strict lower triangle is read; the inverse is written whole.
__device__ __forceinline__ void InvertDiagonalBlock(float* a) {
  const int j = threadIdx.x % 32;
  float m[32];
#pragma unroll
  for (int i = 0; i < 32; ++i) {
    float sum[4] = {i == j ? 1.0f : 0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
    for (int l = 0; l < i; l += 4) {
      const float4 row = *reinterpret_cast<const float4*>(a + i * kLowerStride + l);
      sum[0] = fmaf(-row.x, m[l], sum[0]);
      if (l + 1 < i) sum[1] = fmaf(-row.y, m[l + 1], sum[1]);
      if (l + 2 < i) sum[2] = fmaf(-row.z, m[l + 2], sum[2]);
      if (l + 3 < i) sum[3] = fmaf(-row.w, m[l + 3], sum[3]);
    }
    m[i] = (sum[0] + sum[1]) + (sum[2] + sum[3]);
  }
  __syncwarp();
#pragma unroll
  for (int i = 0; i < 32; ++i) a[i * kLowerStride + j] = m[i];
}

// A tile of fp32 as the sum of two of bf16: 16 bits of significand at fp32's range.
struct SplitTile {
  Tile high;
  Tile low;
};
struct SplitLeft {
  LeftTile high;
  LeftTile low;
};

__device__ __forceinline__ void Split(float a, float b, uint32_t& high, uint32_t& low) {
  high = PackPair<__nv_bfloat16>(a, b);
  const float2 rounded = Unpack(high, __nv_bfloat16{});
  low = PackPair<__nv_bfloat16>(a - rounded.x, b - rounded.y);
}

__device__ __forceinline__ SplitTile SplitSum(const TileSum& s) {
  SplitTile t;
  Split(s.left[0], s.left[1], t.high.x, t.low.x);
  Split(s.right[0], s.right[1], t.high.y, t.low.y);
  Split(s.left[2], s.left[3], t.high.z, t.low.z);
  Split(s.right[2], s.right[3], t.high.w, t.low.w);
  return t;
}

__device__ __forceinline__ SplitLeft SplitLeftSum(const TileSum& s) {
  const SplitTile t = SplitSum(s);
  return {{{t.high.x, t.high.z, t.high.y, t.high.w}}, {{t.low.x, t.low.z, t.low.y, t.low.w}}};
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

// sum += a * bᵀ but for the product of the low parts
__device__ __forceinline__ void MultiplyAdd(TileSum& sum, const SplitLeft& a, const SplitTile& b) {
  MultiplyAdd<__nv_bfloat16>(sum, a.low, b.high);
  MultiplyAdd<__nv_bfloat16>(sum, a.high, b.low);
  MultiplyAdd<__nv_bfloat16>(sum, a.high, b.high);
}

// In place, by 128 threads; ends with a barrier. With blocks of 32,
//   [I + A11        ]^-1   [M11      ]
//   [A21     I + A22]    = [-M22 A21 M11  M22]
// and, so that each product's sums are the next one's operand, M21ᵀ = -(M11ᵀ A21ᵀ) M22ᵀ. A warp
// takes 16 x 16 of it. What lies above the diagonal blocks is left alone.
__device__ __forceinline__ void InvertUnitLower(float* a) {
  constexpr int kHalf = 32;
  float* a21 = a + kHalf * kLowerStride;
  float* a22 = a21 + kHalf;
  const int warp = threadIdx.x / 32;
  if (warp < 2) InvertDiagonalBlock(warp == 0 ? a : a22);
  __syncthreads();

  const int j = warp % 2 * kTileDim;
  const int i = warp / 2 * kTileDim;
  TileSum product[2];  // rows j.., columns 0..31 of M11ᵀ A21ᵀ
#pragma unroll
  for (int l = 0; l < kHalf; l += kTileDim) {
    const SplitLeft m11 = SplitLeftSum(LoadSumTransposed(a + l * kLowerStride + j));
    MultiplyAdd(product[0], m11, SplitSum(LoadSum(a21 + l)));
    MultiplyAdd(product[1], m11, SplitSum(LoadSum(a21 + kTileDim * kLowerStride + l)));
  }
  TileSum m21t;
#pragma unroll
  for (int l = 0; l < 2; ++l) {
    MultiplyAdd(m21t, SplitLeftSum(product[l]),
                SplitSum(LoadSum(a22 + i * kLowerStride + l * kTileDim)));
  }
  __syncthreads();
  const int lane = threadIdx.x % 32;
  float* p = a21 + (i + lane % 4 * 2) * kLowerStride + j + lane / 4;
#pragma unroll
  for (int e = 0; e < 4; ++e) {
    float* to = p + e % 2 * kLowerStride + e / 2 * 8;
    to[0] = -m21t.left[e];
    to[8 * kLowerStride] = -m21t.right[e];
  }
  __syncthreads();
}

}  // namespace gdn::cuda
