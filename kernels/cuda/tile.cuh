// Operands of mma.sync as 16 x 16 tiles. In the registers of a warp a tile is a uint4 a thread:
// with g = lane / 4 and c = 2 * (lane % 4), x holds the pair at (g, c), y at (g, c + 8), z at
// (g + 8, c) and w at (g + 8, c + 8). In memory it is those 16 bytes of each lane in turn.
//
// The same tile serves as A (rows m, columns k) and as B (rows n, columns k); and the sums of two
// products side by side pack into a tile again. So a result can be the next product's operand, or
// go to memory and come back as either, without a transposition.
#pragma once

#include "kernels/cuda/ptx.cuh"

namespace gdn::cuda {

using Tile = uint4;

inline constexpr int kTileDim = 16;
inline constexpr int kTileElements = kTileDim * kTileDim;

// Sums of a 16 x 16 product: columns 0..7 and 8..15.
struct TileSum {
  float left[4] = {};
  float right[4] = {};
};

// sum += a * bᵀ
template <typename T>
__device__ __forceinline__ void MultiplyAdd(TileSum& sum, const Tile& a, const Tile& b) {
  Mma<T>(sum.left, a.x, a.z, a.y, a.w, b.x, b.y);
  Mma<T>(sum.right, a.x, a.z, a.y, a.w, b.z, b.w);
}

template <typename T>
__device__ __forceinline__ Tile PackTile(const TileSum& s) {
  return {PackPair<T>(s.left[0], s.left[1]), PackPair<T>(s.right[0], s.right[1]),
          PackPair<T>(s.left[2], s.left[3]), PackPair<T>(s.right[2], s.right[3])};
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

// ---- rows of 128 elements of 16 bits in shared memory, 16-byte pieces permuted within each 128
// bytes so that eight rows of one piece lie in different banks

inline constexpr int kRowBytes = 256;

__device__ __forceinline__ uint32_t PieceAddress(uint32_t rows, int row, int piece) {
  return rows + row * kRowBytes + ((piece ^ (row & 7)) << 4);
}

// The tile whose first element is at (row, column).
__device__ __forceinline__ Tile LoadTile16(uint32_t rows, int row, int column) {
  const int lane = threadIdx.x % 32;
  return LoadMatrices(
      PieceAddress(rows, row + (lane & 7) + (lane >> 4) * 8, column / 8 + (lane >> 3) % 2));
}
// The transpose of that tile: its rows are the columns in memory.
__device__ __forceinline__ Tile LoadTile16Transposed(uint32_t rows, int row, int column) {
  const int lane = threadIdx.x % 32;
  return LoadMatricesTransposed(
      PieceAddress(rows, row + (lane & 7) + (lane >> 3) % 2 * 8, column / 8 + (lane >> 4)));
}

}  // namespace gdn::cuda
