// The warpgroups that make T and R of the fused kernel (chunk_sm90.h).
#pragma once

#include "kernels/cuda/prefill/chunk_fused_inputs.cuh"
#include "kernels/cuda/prefill/chunk_square.cuh"

namespace gdn::cuda::fused {

// The warp that finds the places of chunks: that with the least of T.
constexpr int kStepWarp = kBlocks - 1;

// The threads of this maker.
__device__ __forceinline__ void MakerSync() {
  NamedBarrier(1 + static_cast<int>(threadIdx.x) / kGroupThreads, kGroupThreads);
}

// Calls f(j, decayed tile) for the warp's tiles of d up to the diagonal's, multiplied by
// rows_i * n_j * exp(gamma_i - gamma_j).
template <typename F>
__device__ __forceinline__ void ForEachDecayed(const Square& d, const float2& rows, int warp,
                                               const Maker& maker, F&& f) {
  const Decay decay(maker.gamma, maker.column, maker.k_norm, warp, rows);
  // All of them before the first is stored, which the compiler lets no load pass, and without
  // branches: the warps wait for the one with the most.
  TileSum tiles[kBlocks - 1];
#pragma unroll
  for (int j = 0; j < kBlocks - 1; ++j) tiles[j] = decay.Left(SumOf(d, j), j);
  const TileSum diagonal = decay.Diagonal(DiagonalOf(d, warp));
#pragma unroll
  for (int j = 0; j < kBlocks - 1; ++j) {
    if (j < warp) f(j, tiles[j]);
  }
  f(warp, diagonal);
}

// -A_ij = -beta_i * n_i * n_j * kk_ij * exp(gamma_i - gamma_j) for i > j; what is not below the
// diagonal is never read.
__device__ __forceinline__ void StoreLower(const Square& kk, int warp, Maker& maker) {
  const float2 beta = RowsOf(maker.beta + warp * kTileDim);
  const float2 norm = RowsOf(maker.k_norm + warp * kTileDim);
  ForEachDecayed(kk, {-beta.x * norm.x, -beta.y * norm.y}, warp, maker, [&](int j, const auto& a) {
    StoreSum(j == warp ? a : Rounded(a), maker.lower.at(warp, j));
  });
}

// R_ij = scale * nq_i * n_j * qk_ij * exp(gamma_i - gamma_j) for i >= j.
template <typename T>
__device__ __forceinline__ void StoreR(const Square& qk, int warp, Maker& maker) {
  const PanelLane to(SharedAddress(maker.r));
  const float2 rows = RowsOf(maker.q_scale + warp * kTileDim);
  ForEachDecayed(qk, rows, warp, maker, [&](int j, const TileSum& r) {
    to.Store(PackLeft<T>(j == warp ? Lower(r) : r), warp * kTileDim, j);
  });
}

// T on and below the diagonal, for the warp's 16 columns.
template <typename T>
__device__ __forceinline__ void StoreT(int warp, Maker& maker) {
  const PanelLane to(SharedAddress(maker.t));
  InvertColumns(maker.lower, warp, [&](int i, const TileSum& u) {
    to.StoreTransposed(PackTile<T>(u), i * kTileDim, warp);
  });
}

// ---- a maker

// From keys and queries that have come to their products among themselves, and all that depends on
// the gates; then A and the inverses of its diagonal's tiles.
template <typename T>
__device__ __forceinline__ void BeginChunk(const ChunkSm90Params& p, uint4* k_rows,
                                           const uint4* q_rows, Maker& maker, Square& qk) {
  const int warp = GroupWarp();
  if (std::is_same_v<T, __half> && p.rule.qk_l2norm) {
    NormalizeRows<T>(k_rows, warp * kTileDim, [](int, float) {});
    AsyncProxyFence();
    MakerSync();
  }
  Square kk;
  MultiplyRows<T>(k_rows, k_rows, kk);
  const float column_decay = SumGates(maker.next_g, warp, maker.gamma).column;
  const TileSum qq = SquareOfRows<T>(q_rows, warp);
  WarpgroupWait();
  WarpgroupTouch(kk);
  StoreScales<T>(p, column_decay, DiagonalOf(kk, warp), qq, maker);
  MakerSync();
  StoreLower(kk, warp, maker);
  MultiplyRows<T>(q_rows, k_rows, qk);
  __syncwarp();
  InvertDiagonalTile(maker.lower, warp);
  WarpgroupWait();
  WarpgroupTouch(qk);
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

// T and R have zeros where nothing is ever stored.
__device__ __forceinline__ void ClearPanels(Maker& maker) {
  for (int i = static_cast<int>(threadIdx.x) % kGroupThreads; i < kPanelPieces;
       i += kGroupThreads) {
    maker.t[i] = maker.r[i] = {};
  }
}

// Before the first chunk: finds it and the one after it.
template <typename T>
__device__ __forceinline__ void BeginPlaces(const ChunkSm90Params& p, int which, Maker& maker) {
  if (GroupWarp() != kStepWarp) return;
  Cursor cursor;
  cursor.Begin(p);
  if (threadIdx.x % 32 == 0) maker.cursor = cursor;
  __syncwarp();
  Step<T>(p, 1 + which, which, maker, maker.places[0]);
  Step<T>(p, kMakers, which, maker, maker.places[1]);
}

// Makes every other chunk's T and R, from the block's first on or from its second.
template <typename T>
__device__ void Make(const ChunkSm90Params& p, const Tensors& tensors, Shared& shared, int which) {
  Maker& maker = shared.makers[which];
  const int warp = GroupWarp();
  ClearPanels(maker);
  BeginPlaces<T>(p, which, maker);
  MakerSync();
  const uint32_t loaded = SharedAddress(&shared.loaded[which]);
  const uint32_t made = SharedAddress(&shared.made[which]);
  LoadNext<T>(p, tensors, maker.places[0], 0, loaded, maker);
  if (threadIdx.x % kGroupThreads == 0) PrefetchState(p, maker.places[0]);
  const auto wait_used = [&](int n) {
    if (n > 0) BarrierWait(SharedAddress(&shared.used[which]), (n - 1) % 2);
  };
  int n = 0;
  for (; maker.places[n % kPlaces].length > 0; ++n) {
    const Place& at = maker.places[n % kPlaces];
    uint4* k = maker.k[n % 2];
    const uint4* q = maker.q[n % 2];
    CopyAsyncWait();
    if (at.length < kChunk) AsyncProxyFence();
    MakerSync();
    BarrierWait(loaded, n % 2);
    Square qk;
    BeginChunk<T>(p, k, q, maker, qk);
    wait_used(n);
    MakerSync();
    LoadValues<T>(p, tensors, at, made, maker);
    LoadNext<T>(p, tensors, maker.places[(n + 1) % kPlaces], (n + 1) % 2, loaded, maker);
    StoreFactors(maker);
    StoreR<T>(qk, warp, maker);
    StoreT<T>(warp, maker);
    if (warp == kStepWarp) {
      Step<T>(p, kMakers, which, maker, maker.places[(n + 2) % kPlaces]);
    }
    CopyAsyncWait<1>();
    AsyncProxyFence();
    BarrierArrive(made);
  }
  wait_used(n);
  BarrierArrive(made);
}

}  // namespace gdn::cuda::fused
