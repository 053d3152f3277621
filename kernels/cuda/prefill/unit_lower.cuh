// The inverse of a unit lower triangular 64 x 64 matrix I + A by tiles of 16 x 16, by four warps.
//
// With D_i the inverses of the diagonal's tiles and U the transpose of the whole inverse,
//   U_jj = D_jᵀ,  U_ji = -(sum over j <= l < i of U_jl A_ilᵀ) D_iᵀ  for i > j
// A warp has the tiles of one j to itself, so that all it needs of the others is what lies in
// memory before it begins; each sum is the next product's left operand as it comes.
#pragma once

#include "kernels/cuda/device/tile.cuh"

namespace gdn::cuda {

inline constexpr int kLowerBlocks = 4;

// A tile in memory: its quarters of 8 x 8 one after another, those of the upper rows first.
using LowerTile = float2[4][32];

// -A below the diagonal, as fp16 (keys are normalised: no element is above beta), and on it, as it
// comes, until there are the inverses D.
struct LowerTiles {
  LowerTile diagonal[kLowerBlocks];
  Tile tiles[kLowerBlocks * (kLowerBlocks - 1) / 2][32];
  uint4 unused[68];  // a panel takes its place, and another matrix behind it lies in other banks

  __device__ Tile (&below(int i, int j))[32] { return tiles[i * (i - 1) / 2 + j]; }
  __device__ const Tile (&below(int i, int j) const)[32] { return tiles[i * (i - 1) / 2 + j]; }

  // By a warp.
  __device__ __forceinline__ void Store(int i, int j, const TileSum& s) {
    below(i, j)[threadIdx.x % 32] = PackTile<__half>(s);
  }
  __device__ __forceinline__ Tile Load(int i, int j) const { return below(i, j)[threadIdx.x % 32]; }
};

__device__ __forceinline__ void StoreSum(const TileSum& s, LowerTile& to) {
  const int lane = threadIdx.x % 32;
  to[0][lane] = {s.left[0], s.left[1]};
  to[1][lane] = {s.right[0], s.right[1]};
  to[2][lane] = {s.left[2], s.left[3]};
  to[3][lane] = {s.right[2], s.right[3]};
}

__device__ __forceinline__ TileSum LoadSum(const LowerTile& from) {
  const int lane = threadIdx.x % 32;
  const float2 x = from[0][lane], y = from[1][lane], z = from[2][lane], w = from[3][lane];
  return {{x.x, x.y, z.x, z.y}, {y.x, y.y, w.x, w.y}};
}

__device__ __forceinline__ TileSum LoadSumTransposed(const LowerTile& from) {
  const int lane = threadIdx.x % 32;
  const float* x = &from[0][0].x + lane % 4 * 16 + lane / 4;
  return {{x[0], x[8], x[64], x[72]}, {x[128], x[136], x[192], x[200]}};
}

// The inverse of a quarter on the diagonal in its place, rounded, by eight lanes of a warp: each
// takes a column j.
//   D_ij = [i = j] - sum over l < i of A_il * D_lj
// Only what lies below the diagonal is read. The warp's other lanes may take other quarters.
__device__ __forceinline__ void InvertQuarter(float2 (&quarter)[32]) {
  constexpr int kSize = kTileDim / 2;
  const int j = static_cast<int>(NotBefore(threadIdx.x % kSize));
  const uint32_t rows = SharedAddress(quarter);
  const auto load = [&](int i, int l) {
    return LoadSharedFloats(rows + (i * kSize + l) * sizeof(float));
  };
  float d[kSize] = {j == 0 ? 1.0f : 0.0f};
  // What d_i has of four columns l.. before i, in two sums.
  const auto add = [&](const float4& row, int i, int l, float2& sum) {
    if (l < i) sum.x = fmaf(row.x, d[l], sum.x);
    if (l + 1 < i) sum.y = fmaf(row.y, d[l + 1], sum.y);
    if (l + 2 < i) sum.x = fmaf(row.z, d[l + 2], sum.x);
    if (l + 3 < i) sum.y = fmaf(row.w, d[l + 3], sum.y);
  };
  const auto begin = [&](int i) { return float2{i == j ? 1.0f : 0.0f, 0.0f}; };
  // Rows are loaded several at a time: all that there are registers for.
  constexpr int kFew = kSize / 2;
  float4 few[kFew];
#pragma unroll
  for (int i = 0; i < kFew; ++i) few[i] = load(i + 1, 0);
#pragma unroll
  for (int i = 1; i <= kFew; ++i) {
    float2 sum = begin(i);
    add(few[i - 1], i, 0, sum);
    d[i] = sum.x + sum.y;
  }
  constexpr int kRest = kSize - 1 - kFew;
  float4 rest[kRest][2];
#pragma unroll
  for (int i = 0; i < kRest; ++i) {
    rest[i][0] = load(i + 1 + kFew, 0);
    rest[i][1] = load(i + 1 + kFew, 4);
  }
#pragma unroll
  for (int i = kFew + 1; i < kSize; ++i) {
    float2 sum = begin(i);
    add(rest[i - 1 - kFew][0], i, 0, sum);
    add(rest[i - 1 - kFew][1], i, 4, sum);
    d[i] = sum.x + sum.y;
  }
  __syncwarp();
  float* column = &quarter[0].x + j;
#pragma unroll
  for (int i = 0; i < kSize; ++i) column[i * kSize] = ToTf32(d[i]);
}

// D of a diagonal's tile whose quarters on the diagonal have been inverted, by a warp:
//   D_21ᵀ = -(D_11ᵀ A_21ᵀ) D_22ᵀ
__device__ __forceinline__ void JoinQuarters(LowerTile& tile) {
  const int lane = threadIdx.x % 32;
  const int transposed = lane % 4 * 16 + lane / 4;
  const float* d11 = &tile[0][0].x + transposed;
  float* d21 = &tile[2][0].x + transposed;
  const float2 a21 = tile[2][lane];
  const float2 d22 = tile[3][lane];
  float product[4] = {};
  MmaTf32(product, d11[0], 0.0f, d11[8], 0.0f, RoundToTf32(a21.x), RoundToTf32(a21.y));
  float sum[4] = {};
  MmaTf32(sum, RoundToTf32(product[0]), 0.0f, RoundToTf32(product[1]), 0.0f, d22.x, d22.y);
  __syncwarp();
  d21[0] = ToTf32(sum[0]);
  d21[8] = ToTf32(sum[1]);
  tile[1][lane] = {};
}

// D of the diagonal's tile (i, i) of two matrices in its place, rounded, by a warp.
__device__ __forceinline__ void InvertDiagonalTiles(LowerTiles (&lower)[2], int i) {
  const int lane = threadIdx.x % 32;
  InvertQuarter(lower[lane / 16].diagonal[i][lane / 8 % 2 * 3]);
  __syncwarp();
  JoinQuarters(lower[0].diagonal[i]);
  JoinQuarters(lower[1].diagonal[i]);
}

// The same of one matrix.
__device__ __forceinline__ void InvertDiagonalTile(LowerTiles& lower, int i) {
  InvertQuarter(lower.diagonal[i][threadIdx.x / 8 % 2 * 3]);
  __syncwarp();
  JoinQuarters(lower.diagonal[i]);
}

// Calls take(i, U_ji) for the warp's j and i = j.., one after another; `i` is known to the
// compiler.
template <typename F>
__device__ __forceinline__ void InvertColumns(const LowerTiles& lower, int j, F&& take) {
  TileSum sums[kLowerBlocks];
#pragma unroll
  for (int l = 0; l < kLowerBlocks; ++l) {
    if (l < j) continue;
    TileSum u;
    if (l == j) {
      u = LoadSumTransposed(lower.diagonal[l]);
    } else {
      const Tile d = PackTile<__half>(LoadSum(lower.diagonal[l]));
      MultiplyAdd<__half>(u, PackLeft<__half>(sums[l]), d);
    }
    const LeftTile left = PackLeft<__half>(u);
#pragma unroll
    for (int i = l + 1; i < kLowerBlocks; ++i) {
      MultiplyAdd<__half>(sums[i], left, lower.Load(i, l));
    }
    take(l, u);
  }
}

}  // namespace gdn::cuda
