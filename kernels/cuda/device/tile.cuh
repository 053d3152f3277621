// Operands of mma.sync as 16 x 16 tiles. In the registers of a warp a tile is 16 bytes a thread:
// with g = lane / 4 and c = 2 * (lane % 4), the pairs at (g, c), (g, c + 8), (g + 8, c) and
// (g + 8, c + 8). In memory it is those 16 bytes of each lane in turn.
//
// A tile is the right operand: its rows are n, its columns k. The left operand (rows m, columns k)
// holds the same pairs, the second and third exchanged. The sums of two products side by side pack
// into either. So a result can be the next product's operand, or go to memory and come back as one,
// without a transposition.
#pragma once

#include "kernels/cuda/device/ptx.cuh"

namespace gdn::cuda {

using Tile = uint4;

struct LeftTile {
  uint4 r;
};

inline constexpr int kTileDim = 16;

// Sums of a 16 x 16 product: columns 0..7 and 8..15.
struct TileSum {
  float left[4] = {};
  float right[4] = {};
};

// sum += a * bᵀ
template <typename T>
__device__ __forceinline__ void MultiplyAdd(TileSum& sum, const LeftTile& a, const Tile& b) {
  Mma<T>(sum.left, a.r.x, a.r.y, a.r.z, a.r.w, b.x, b.y);
  Mma<T>(sum.right, a.r.x, a.r.y, a.r.z, a.r.w, b.z, b.w);
}

template <typename T>
__device__ __forceinline__ Tile PackTile(const TileSum& s) {
  return {PackPair<T>(s.left[0], s.left[1]), PackPair<T>(s.right[0], s.right[1]),
          PackPair<T>(s.left[2], s.left[3]), PackPair<T>(s.right[2], s.right[3])};
}

template <typename T>
__device__ __forceinline__ LeftTile PackLeft(const TileSum& s) {
  return {{PackPair<T>(s.left[0], s.left[1]), PackPair<T>(s.left[2], s.left[3]),
           PackPair<T>(s.right[0], s.right[1]), PackPair<T>(s.right[2], s.right[3])}};
}

__device__ __forceinline__ float2 Unpack(uint32_t pair, __nv_bfloat16) {
  return {__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u)};
}
__device__ __forceinline__ float2 Unpack(uint32_t pair, __half) {
  return __half22float2(*reinterpret_cast<const __half2*>(&pair));
}

template <typename T>
__device__ __forceinline__ TileSum UnpackTile(const Tile& t) {
  const float2 x = Unpack(t.x, T{}), y = Unpack(t.y, T{}), z = Unpack(t.z, T{}),
               w = Unpack(t.w, T{});
  return {{x.x, x.y, z.x, z.y}, {y.x, y.y, w.x, w.y}};
}

template <typename T>
__device__ __forceinline__ TileSum UnpackLeft(const LeftTile& t) {
  return UnpackTile<T>({t.r.x, t.r.z, t.r.y, t.r.w});
}

// Sums of a warpgroup, 16 rows of a warp by 16 columns at a time: eight a thread.
template <int N>
__device__ __forceinline__ TileSum SumOf(const float (&d)[N], int tile) {
  const float* e = d + 8 * tile;
  return {{e[0], e[1], e[2], e[3]}, {e[4], e[5], e[6], e[7]}};
}
template <int N>
__device__ __forceinline__ void SetSum(float (&d)[N], int tile, const TileSum& s) {
#pragma unroll
  for (int e = 0; e < 4; ++e) {
    d[8 * tile + e] = s.left[e];
    d[8 * tile + 4 + e] = s.right[e];
  }
}

// A lane's two rows of a tile, i and i + 8, and its four columns.
__device__ __forceinline__ float2 RowsOf(const float* factors) {
  const int row = threadIdx.x % 32 / 4;
  return {factors[row], factors[row + 8]};
}
__device__ __forceinline__ float4 ColumnsOf(const float* factors) {
  const float2 left = reinterpret_cast<const float2*>(factors)[threadIdx.x % 4];
  const float2 right = reinterpret_cast<const float2*>(factors)[threadIdx.x % 4 + 4];
  return {left.x, left.y, right.x, right.y};
}

__device__ __forceinline__ TileSum Scaled(const TileSum& m, const float2& rows) {
  const auto [x, y] = rows;
  return {{m.left[0] * x, m.left[1] * x, m.left[2] * y, m.left[3] * y},
          {m.right[0] * x, m.right[1] * x, m.right[2] * y, m.right[3] * y}};
}
__device__ __forceinline__ TileSum Scaled(const TileSum& m, const float4& c) {
  return {{m.left[0] * c.x, m.left[1] * c.y, m.left[2] * c.x, m.left[3] * c.y},
          {m.right[0] * c.z, m.right[1] * c.w, m.right[2] * c.z, m.right[3] * c.w}};
}
// a + b with its rows scaled
__device__ __forceinline__ TileSum AddScaled(const TileSum& a, const TileSum& b, const float2& r) {
  return {{fmaf(b.left[0], r.x, a.left[0]), fmaf(b.left[1], r.x, a.left[1]),
           fmaf(b.left[2], r.y, a.left[2]), fmaf(b.left[3], r.y, a.left[3])},
          {fmaf(b.right[0], r.x, a.right[0]), fmaf(b.right[1], r.x, a.right[1]),
           fmaf(b.right[2], r.y, a.right[2]), fmaf(b.right[3], r.y, a.right[3])}};
}
// a + b with its columns scaled
__device__ __forceinline__ TileSum AddScaled(const TileSum& a, const TileSum& b, const float4& c) {
  return {{fmaf(b.left[0], c.x, a.left[0]), fmaf(b.left[1], c.y, a.left[1]),
           fmaf(b.left[2], c.x, a.left[2]), fmaf(b.left[3], c.y, a.left[3])},
          {fmaf(b.right[0], c.z, a.right[0]), fmaf(b.right[1], c.w, a.right[1]),
           fmaf(b.right[2], c.z, a.right[2]), fmaf(b.right[3], c.w, a.right[3])}};
}

}  // namespace gdn::cuda
