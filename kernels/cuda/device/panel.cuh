// Rows of elements of 16 bits in shared memory as the tensor cores take them: in panels of 64
// columns, a row's 128 bytes side by side, their 16-byte pieces permuted so that eight rows of one
// piece lie in different banks (RowsAreN and RowsAreK in warpgroup.cuh).
#pragma once

#include <type_traits>

#include "kernels/cuda/device/dtype.cuh"
#include "kernels/cuda/device/pointwise.cuh"
#include "kernels/cuda/device/tile.cuh"
#include "kernels/ops/operands.h"

namespace gdn::cuda {

inline constexpr int kPanelRowBytes = 128;
inline constexpr int kPanelPieces = kChunk * kPanelRowBytes / 16;  // of 64 rows
inline constexpr int kPanelBytes = kPanelPieces * 16;

// The place of piece `piece` of row `row` among the pieces of panels of 64 rows.
__device__ __forceinline__ int PanelPiece(int row, int piece) {
  return piece / 8 * kPanelPieces + row * 8 + ((piece ^ row) & 7);
}

// Where a lane looks to load tiles: `straight` for a tile or the transpose of a left one, `crossed`
// for a left tile or the transpose of a tile. Panels are aligned to 1024 bytes.
struct PanelLane {
  uint32_t straight;
  uint32_t crossed;

  explicit __device__ PanelLane(uint32_t panels) {
    const int lane = threadIdx.x % 32;
    const int low = (lane >> 3) % 2;
    const int high = lane >> 4;
    straight = panels + PanelPiece(lane % 8 + 8 * high, low) * 16;
    crossed = panels + PanelPiece(lane % 8 + 8 * low, high) * 16;
  }

  // The tile of rows row.. and columns 16 * tile..
  static __device__ uint32_t At(uint32_t lane, int row, int tile) {
    return (lane ^ (tile % 4 * 32)) + row * kPanelRowBytes + tile / 4 * kPanelBytes;
  }

  __device__ LeftTile LoadLeft(int row, int tile) const {
    return {LoadMatrices(At(crossed, row, tile))};
  }
  __device__ void Store(const LeftTile& t, int row, int tile) const {
    StoreMatrices(At(crossed, row, tile), t.r);
  }
  // The transpose of `t`.
  __device__ void StoreTransposed(const Tile& t, int row, int tile) const {
    StoreMatricesTransposed(At(crossed, row, tile), t);
  }
};

// Begins to copy 64 rows of 128 elements, `stride` apart, by kThreads threads; from row `length` on
// they become zeros.
template <int kThreads, typename T>
__device__ __forceinline__ void LoadPanels(uint32_t to, const T* from, int64_t stride, int length) {
  constexpr int kPieces = 16;
  constexpr int kStep = kThreads / kPieces;           // rows at a time
  constexpr int kPeriod = kStep < 8 ? 8 / kStep : 1;  // steps, of the permutation
  const int row = static_cast<int>(threadIdx.x) % kThreads / kPieces;
  const int piece = static_cast<int>(threadIdx.x) % kPieces;
  uint32_t addresses[kPeriod];
#pragma unroll
  for (int i = 0; i < kPeriod; ++i) addresses[i] = to + PanelPiece(row + i * kStep, piece) * 16;
  const T* next = from + row * stride + piece * 8;
  const auto load = [&](auto all) {
#pragma unroll
    for (int i = 0; i < kChunk / kStep; ++i) {
      const bool valid = all.value || row + i * kStep < length;
      CopyAsync16(addresses[i % kPeriod] + i / kPeriod * kPeriod * kStep * kPanelRowBytes,
                  valid ? next : from, valid);
      next += kStep * stride;
    }
  };
  if (length == kChunk) {
    load(std::true_type());
  } else {
    load(std::false_type());
  }
}

// x *= rsqrt(sum of x² + eps) for 16 rows of two panels, by one warp; half of it takes a row and
// calls scaled(row, that factor).
template <typename T, typename F>
__device__ __forceinline__ void NormalizeRows(uint4* panels, int first, F&& scaled_by) {
  constexpr int kRows = kTileDim / 2;
  uint4* pieces[kRows];
  float sums[kRows] = {};
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    pieces[i] = panels + PanelPiece(first + 2 * i + threadIdx.x % 32 / 16, threadIdx.x % 16);
    const uint4 x = *pieces[i];
    for (const uint32_t pair : {x.x, x.y, x.z, x.w}) {
      const float2 value = Unpack(pair, T{});
      sums[i] = fmaf(value.x, value.x, fmaf(value.y, value.y, sums[i]));
    }
  }
#pragma unroll
  for (int step = 8; step > 0; step /= 2) {
#pragma unroll
    for (float& sum : sums) sum += __shfl_xor_sync(~0u, sum, step);
  }
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    const float scale = InverseRoot(sums[i] + kL2NormEps);
    scaled_by(first + 2 * i + static_cast<int>(threadIdx.x) % 32 / 16, scale);
    const auto scaled = [&](uint32_t pair) {
      const float2 value = Unpack(pair, T{});
      return PackPair<T>(value.x * scale, value.y * scale);
    };
    const uint4 x = *pieces[i];
    *pieces[i] = {scaled(x.x), scaled(x.y), scaled(x.z), scaled(x.w)};
  }
}

}  // namespace gdn::cuda
