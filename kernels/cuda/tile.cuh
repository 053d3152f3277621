// Operands of mma.sync as 16 x 16 tiles. In the registers of a warp a tile is 16 bytes a thread:
// with g = lane / 4 and c = 2 * (lane % 4), the pairs at (g, c), (g, c + 8), (g + 8, c) and
// (g + 8, c + 8). In memory it is those 16 bytes of each lane in turn.
//
// A tile is the right operand: its rows are n, its columns k. The left operand (rows m, columns k)
// holds the same pairs, the second and third exchanged. The sums of two products side by side pack
// into either. So a result can be the next product's operand, or go to memory and come back as one,
// without a transposition.
#pragma once

#include "kernels/cuda/ptx.cuh"

namespace gdn::cuda {

using Tile = uint4;

struct LeftTile {
  uint4 r;
};

inline constexpr int kTileDim = 16;
inline constexpr int kTileElements = kTileDim * kTileDim;

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

// ---- rows of 128 elements of 16 bits in shared memory, 16-byte pieces permuted within each 128
// bytes so that eight rows of one piece lie in different banks

inline constexpr int kRowBytes = 256;

__device__ __forceinline__ uint32_t PieceAddress(uint32_t rows, int row, int piece) {
  return rows + row * kRowBytes + ((piece ^ (row & 7)) << 4);
}

// Where a lane looks to load tiles from such rows: `straight` for a tile or the transpose of a left
// one, `crossed` for a left tile or the transpose of a tile. `rows` is aligned to kRowBytes.
struct LaneAddress {
  uint32_t straight;
  uint32_t crossed;

  explicit __device__ LaneAddress(uint32_t rows) {
    const int lane = threadIdx.x % 32;
    const int low = (lane >> 3) % 2;
    const int high = lane >> 4;
    straight = PieceAddress(rows, lane % 8 + 8 * high, low);
    crossed = PieceAddress(rows, lane % 8 + 8 * low, high);
  }
};

// That of the tile of rows row.. and columns 16 * tile.. in memory.
__device__ __forceinline__ uint32_t TileAddress(uint32_t lane_address, int row, int tile) {
  return (lane_address ^ (tile * 32)) + row * kRowBytes;
}

__device__ __forceinline__ Tile LoadTile16(const LaneAddress& a, int row, int tile) {
  return LoadMatrices(TileAddress(a.straight, row, tile));
}
__device__ __forceinline__ LeftTile LoadLeft16(const LaneAddress& a, int row, int tile) {
  return {LoadMatrices(TileAddress(a.crossed, row, tile))};
}
__device__ __forceinline__ Tile LoadTile16Transposed(const LaneAddress& a, int row, int tile) {
  return LoadMatricesTransposed(TileAddress(a.crossed, row, tile));
}
__device__ __forceinline__ LeftTile LoadLeft16Transposed(const LaneAddress& a, int row, int tile) {
  return {LoadMatricesTransposed(TileAddress(a.straight, row, tile))};
}

}  // namespace gdn::cuda
