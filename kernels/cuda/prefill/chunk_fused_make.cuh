// The warpgroups that make X and P of the fused kernel (chunk_sm90.h).
#pragma once

#include <type_traits>

#include "kernels/cuda/prefill/chunk_fused_inputs.cuh"

namespace gdn::cuda::fused {

// The threads of this maker.
__device__ __forceinline__ void MakerSync() {
  NamedBarrier(1 + static_cast<int>(threadIdx.x) / kGroupThreads, kGroupThreads);
}

// ---- products

// 64 x 64 sums of a warpgroup, a warp's 16 rows.
using Square = float[kChunk / 2];

// d = a * bᵀ of rows in panels; begins it only.
template <typename T>
__device__ __forceinline__ void MultiplyRows(const uint4* a_rows, const uint4* b_rows, Square& d) {
  const uint64_t a = RowsAreN(SharedAddress(a_rows));
  const uint64_t b = RowsAreN(SharedAddress(b_rows));
  const auto step = [](int c) { return c / 4 * (kPanelBytes / 16) + c % 4 * 2; };
  WarpgroupMmaShared<T, false>(d, a, b);
#pragma unroll
  for (int c = 1; c < kDimTiles; ++c) WarpgroupMmaShared<T>(d, a + step(c), b + step(c));
  WarpgroupCommit();
}

// exp(gamma_i - gamma_j) of a tile, where it is above the diagonal of no use and maybe infinite.
__device__ __forceinline__ TileSum Decays(const float2& i, const float4& j) {
  return {{Exp2(i.x - j.x), Exp2(i.x - j.y), Exp2(i.y - j.x), Exp2(i.y - j.y)},
          {Exp2(i.x - j.z), Exp2(i.x - j.w), Exp2(i.y - j.z), Exp2(i.y - j.w)}};
}

__device__ __forceinline__ TileSum Product(const TileSum& a, const TileSum& b) {
  TileSum c;
#pragma unroll
  for (int e = 0; e < 4; ++e) {
    c.left[e] = a.left[e] * b.left[e];
    c.right[e] = a.right[e] * b.right[e];
  }
  return c;
}

// Zero above the diagonal of a tile.
__device__ __forceinline__ TileSum Lower(TileSum m) {
  const int below = threadIdx.x % 32 / 4 - static_cast<int>(threadIdx.x) % 4 * 2;  // row - column
#pragma unroll
  for (int e = 0; e < 2; ++e) {
    if (below < e) m.left[e] = m.right[2 + e] = 0.0f;
    m.right[e] = 0.0f;
  }
  return m;
}

// For the warp's 16 rows i and the columns j of one tile: n_j * exp(gamma_i - gamma_j), but for a
// factor of the row. Left of the diagonal's tile that is exp(gamma_i - gamma_f), f the first of the
// rows: fewer exponentials, and neither factor grows where gates only decay.
struct RowDecays {
  float first;
  float2 gamma;
  float2 row;

  __device__ RowDecays(const Maker& maker, int warp)
      : first(maker.gamma[warp * kTileDim]),
        gamma(RowsOf(maker.gamma + warp * kTileDim)),
        row{Exp2(gamma.x - first), Exp2(gamma.y - first)} {}

  __device__ float4 Left(const Maker& maker, int j) const {
    const float4 n = ColumnsOf(maker.k_norm + j * kTileDim);
    const float4 g = ColumnsOf(maker.gamma + j * kTileDim);
    return {n.x * Exp2(first - g.x), n.y * Exp2(first - g.y), n.z * Exp2(first - g.z),
            n.w * Exp2(first - g.w)};
  }
  __device__ TileSum Diagonal(const Maker& maker, int warp) const {
    return Scaled(Decays(gamma, ColumnsOf(maker.gamma + warp * kTileDim)),
                  ColumnsOf(maker.k_norm + warp * kTileDim));
  }
};

// N_ij = -beta_i * n_i * n_j * kk_ij * exp(gamma_i - gamma_j), into shared memory, for the warp's
// 16 rows i and all j <= i.
template <int kWarp>
__device__ __forceinline__ void StoreLower(const Square& kk, Maker& maker) {
  const RowDecays decays(maker, kWarp);
  const float2 n = RowsOf(maker.k_norm + kWarp * kTileDim);
  const float2 beta = RowsOf(maker.beta + kWarp * kTileDim);
  const float2 rows = {-beta.x * n.x, -beta.y * n.y};
  const float2 left = {rows.x * decays.row.x, rows.y * decays.row.y};
#pragma unroll
  for (int j = 0; j < kWarp; ++j) {
    StoreSum(Rounded(Scaled(Scaled(SumOf(kk, j), decays.Left(maker, j)), left)),
             LowerTile(maker.lower, kWarp, j));
  }
  StoreSum(Scaled(Product(SumOf(kk, kWarp), decays.Diagonal(maker, kWarp)), rows),
           LowerTile(maker.lower, kWarp, kWarp));
}

// R_ij = scale * nq_i * n_j * qk_ij * exp(gamma_i - gamma_j) in its place, for the warp's 16 rows
// i; zero for j > i.
template <int kWarp>
__device__ __forceinline__ void ScaleQueries(const Maker& maker, Square& qk) {
  const RowDecays decays(maker, kWarp);
  const float2 rows = RowsOf(maker.q_scale + kWarp * kTileDim);
  const float2 left = {rows.x * decays.row.x, rows.y * decays.row.y};
#pragma unroll
  for (int j = 0; j < kWarp; ++j) {
    SetSum(qk, j, Scaled(Scaled(SumOf(qk, j), decays.Left(maker, j)), left));
  }
  SetSum(qk, kWarp, Lower(Scaled(Product(SumOf(qk, kWarp), decays.Diagonal(maker, kWarp)), rows)));
#pragma unroll
  for (int j = kWarp + 1; j < kBlocks; ++j) SetSum(qk, j, {});
}

// Tiles of T for X: rows i, the warp's 16 columns, times beta_j and d_i; without the diagonal.
using XOperands = uint4[kBlocks];

// The warp's columns of T: for P into shared memory, for X into registers.
template <typename T, int kWarp>
__device__ __forceinline__ void FinishColumns(Maker& maker, XOperands& for_x) {
  TileSum t[kBlocks - kWarp];
  InverseColumns<kWarp>(maker.lower, t);
  OnDiagonal([&](int, int e) { t[0].left[e] = t[0].right[2 + e] = 0.0f; });
  const float2 beta = RowsOf(maker.beta + kWarp * kTileDim);
  const PanelLane for_p(SharedAddress(maker.p));
#pragma unroll
  for (int i = 0; i < kBlocks; ++i) {
    for_x[i] = {};
    Tile tile = {};
    if (i >= kWarp) {
      const TileSum scaled = Scaled(t[i >= kWarp ? i - kWarp : 0], beta);
      tile = PackTile<T>(scaled);
      for_x[i] = PackLeft<T>(Scaled(scaled, ColumnsOf(maker.decay + i * kTileDim))).r;
    }
    for_p.StoreTransposed(tile, i * kTileDim, kWarp);
  }
  AsyncProxyFence();
}

// Half of the columns of X, the warp's 16 rows:
//   X_j = beta_j * (d_j * k_j + sum over i > j of T_ij * d_i * k_i)
// The first term, all of it where gates decay fast or keys are far apart, is thus rounded only
// once.
template <typename T>
__device__ __forceinline__ void BeginX(const XOperands& t, const float2& own, int half,
                                       const uint4* k_rows, Square& x) {
  const PanelLane rows(SharedAddress(k_rows));
#pragma unroll
  for (int c = 0; c < kDimTiles / 2; ++c) {
    const Tile k = rows.Load(GroupWarp() * kTileDim, half * (kDimTiles / 2) + c);
    SetSum(x, c, Scaled(UnpackTile<T>(k), own));
  }
  const uint64_t k = RowsAreK(SharedAddress(k_rows)) + half * (kPanelBytes / 16);
  WarpgroupTouch(x);
  WarpgroupFence();
#pragma unroll
  for (int i = 0; i < kBlocks; ++i) {
    WarpgroupMmaRowsAreK<T>(x, t[i], k + i * (kTileDim * kPanelRowBytes / 16));
  }
  WarpgroupCommit();
}

using Packed = LeftTile[kBlocks];

template <typename T>
__device__ __forceinline__ void Pack(const Square& d, Packed& packed) {
#pragma unroll
  for (int j = 0; j < kBlocks; ++j) packed[j] = PackLeft<T>(SumOf(d, j));
}

// The warp's 16 rows of a panel.
__device__ __forceinline__ void StoreRows(const Packed& rows, uint4* panel) {
  const PanelLane to(SharedAddress(panel));
#pragma unroll
  for (int j = 0; j < kBlocks; ++j) to.Store(rows[j], GroupWarp() * kTileDim, j);
}

// Calls f with this warp's number as a constant.
template <typename F>
__device__ __forceinline__ void ByWarp(F&& f) {
  switch (GroupWarp()) {
    case 0:
      return f(std::integral_constant<int, 0>());
    case 1:
      return f(std::integral_constant<int, 1>());
    case 2:
      return f(std::integral_constant<int, 2>());
    default:
      return f(std::integral_constant<int, 3>());
  }
}

// X and P, from T and the queries.
//   P_ij = beta_j * (R_ij + sum over l > j of R_il * T_lj)
template <typename T>
__device__ __forceinline__ void FinishProducts(Maker& maker, const uint4* k_rows,
                                               const uint4* q_rows, const XOperands& for_x) {
  const int first = GroupWarp() * kTileDim;
  Square p;
  WarpgroupFence();
  MultiplyRows<T>(q_rows, k_rows, p);
  WarpgroupWait();
  WarpgroupTouch(p);
  ByWarp([&](auto warp) { ScaleQueries<warp>(maker, p); });
  MakerSync();  // T is there
  uint4 r[kBlocks];
#pragma unroll
  for (int j = 0; j < kBlocks; ++j) {
    r[j] = PackLeft<T>(SumOf(p, j)).r;
    SetSum(p, j, Scaled(SumOf(p, j), ColumnsOf(maker.beta + j * kTileDim)));
  }
  const uint64_t t = RowsAreK(SharedAddress(maker.p));
  WarpgroupTouch(r);
  WarpgroupTouch(p);
  WarpgroupFence();
#pragma unroll
  for (int l = 0; l < kBlocks; ++l) {
    WarpgroupMmaRowsAreK<T>(p, r[l], t + l * (kTileDim * kPanelRowBytes / 16));
  }
  WarpgroupCommit();
  WarpgroupWait();
  WarpgroupTouch(p);
  MakerSync();  // T is no longer read
  Packed packed;
  Pack<T>(p, packed);
  StoreRows(packed, maker.p);
  const float2 beta = RowsOf(maker.beta + first);
  const float2 decay = RowsOf(maker.decay + first);
  const float2 own = {beta.x * decay.x, beta.y * decay.y};
  Square x;
  BeginX<T>(for_x, own, 0, k_rows, x);
  WarpgroupWait();
  WarpgroupTouch(x);
  Pack<T>(x, packed);
  BeginX<T>(for_x, own, 1, k_rows, x);
  StoreRows(packed, maker.x);
  WarpgroupWait();
  WarpgroupTouch(x);
  Pack<T>(x, packed);
  StoreRows(packed, maker.x + kPanelPieces);
}

// ---- a maker

// From keys that have come to their products and all that depends on the gates.
template <typename T>
__device__ __forceinline__ void MultiplyKeys(const ChunkSm90Params& p, int length, uint4* k_rows,
                                             const uint4* q_rows, Maker& maker, Square& kk) {
  const int warp = GroupWarp();
  if (std::is_same_v<T, __half> && p.rule.qk_l2norm) {
    NormalizeRows<T>(k_rows, warp * kTileDim);
    AsyncProxyFence();
    MakerSync();
  }
  WarpgroupFence();
  MultiplyRows<T>(k_rows, k_rows, kk);
  StoreScales(p, SquareOfQueries<T>(q_rows), maker);
  if (warp == 0) StoreSums(p, length, maker);
  WarpgroupWait();
  WarpgroupTouch(kk);
#pragma unroll
  for (int j = 0; j < kBlocks; ++j) {
    if (j == warp) StoreNorms<T>(p, SumOf(kk, j), maker);
  }
}

// From the keys' products to the warp's columns of T.
template <typename T>
__device__ __forceinline__ void Solve(Maker& maker, const Square& kk, XOperands& for_x) {
  ByWarp([&](auto warp) {
    StoreLower<warp>(kk, maker);
    if (warp == 0) StoreFactors(maker);
    __syncwarp();
    InvertTile(LowerTile(maker.lower, warp, warp));
    MakerSync();
    FinishColumns<T, warp>(maker, for_x);
  });
}

// PAD rows: o = 0, by one warp.
template <typename T>
__device__ void StoreZeros(const ChunkSm90Params& p, int64_t token, int64_t tokens, int head) {
  constexpr int kWidth = kSm90Dim * sizeof(T) / sizeof(uint4);
  T* to = static_cast<T*>(p.rule.o) + token * p.rule.o_stride + int64_t{head} * kSm90Dim;
  for (int64_t e = threadIdx.x % 32; e < tokens * kWidth; e += 32) {
    reinterpret_cast<uint4*>(to + e / kWidth * p.rule.o_stride)[e % kWidth] = {};
  }
}

// Goes on by `chunks` chunks and writes down the place, by one warp.
template <typename T>
__device__ __forceinline__ void Step(const ChunkSm90Params& p, int chunks, int which, Maker& maker,
                                     Place& place) {
  Cursor cursor = maker.cursor;
  for (int i = 0; i < chunks; ++i) {
    cursor.Next(p, [&](int64_t token, int64_t tokens, int head) {
      if (head % kMakers == which) StoreZeros<T>(p, token, tokens, head);
    });
  }
  __syncwarp();
  if (threadIdx.x % 32 == 0) {
    maker.cursor = cursor;
    place = cursor.place(p);
  }
  __syncwarp();
}

// Makes every other chunk's X and P, from the block's first on or from its second.
template <typename T>
__device__ void Make(const ChunkSm90Params& p, Shared& shared, int which) {
  Maker& maker = shared.makers[which];
  const bool steps = GroupWarp() == 1;
  if (steps) {
    Cursor cursor;
    cursor.Begin(p);
    if (threadIdx.x % 32 == 0) maker.cursor = cursor;
    __syncwarp();
    Step<T>(p, 1 + which, which, maker, maker.places[0]);
  }
  MakerSync();
  LoadNext<T>(p, maker.places[0], 0, maker);
  const auto wait_used = [&](int n) {
    if (n > 0) BarrierWait(SharedAddress(&shared.used[which]), (n - 1) % 2);
  };
  int n = 0;
  for (; maker.places[n % kPlaces].length > 0; ++n) {
    const Place& at = maker.places[n % kPlaces];
    Place& next = maker.places[(n + 1) % kPlaces];
    const int buffer = n % 2;
    CopyAsyncWait();
    AsyncProxyFence();
    MakerSync();
    if (steps) Step<T>(p, kMakers, which, maker, next);
    Square kk;
    MultiplyKeys<T>(p, at.length, maker.k[buffer], maker.q[buffer], maker, kk);
    wait_used(n);
    MakerSync();
    LoadTokens<T>(p.rule.v, p.rule.v_stride, int64_t{at.head} * kSm90Dim, at, maker.v);
    CopyAsyncCommit();
    LoadNext<T>(p, next, buffer ^ 1, maker);
    XOperands for_x;
    Solve<T>(maker, kk, for_x);
    FinishProducts<T>(maker, maker.k[buffer], maker.q[buffer], for_x);
    CopyAsyncWait<1>();
    AsyncProxyFence();
    __syncwarp();
    if (threadIdx.x % 32 == 0) BarrierArrive(SharedAddress(&shared.made[which]));
  }
  wait_used(n);
  if (threadIdx.x % 32 == 0) BarrierArrive(SharedAddress(&shared.made[which]));
}

}  // namespace gdn::cuda::fused
