// The warpgroups that make T and R of the fused kernel (chunk_sm90.h).
#pragma once

#include "kernels/cuda/prefill/chunk_fused_copies.cuh"
#include "kernels/cuda/prefill/chunk_fused_inputs.cuh"
#include "kernels/cuda/prefill/chunk_square.cuh"

namespace gdn::cuda::fused {

// The warp that finds the places of chunks: that with the least of T.
constexpr int kStepWarp = kBlocks - 1;

// -A_ij = -beta_i * n_i * n_j * kk_ij * exp(gamma_i - gamma_j) for i > j, left of the diagonal's
// tile, and the inverse of that.
__device__ __forceinline__ void StoreLowerAndInverse(const Square& kk, int warp, Maker& maker) {
  const float2 beta = RowsOf(maker.beta + warp * kTileDim);
  const float2 norm = RowsOf(maker.k_norm + warp * kTileDim);
  const Decay decay(maker.gamma, maker.column, maker.k_norm, warp,
                    {-beta.x * norm.x, -beta.y * norm.y});
#pragma unroll
  for (int j = 0; j < kBlocks - 1; ++j) {
    if (j < warp) maker.lower.Store(warp, j, decay.Left(SumOf(kk, j), j));
  }
  maker.lower.StoreDiagonal(warp, InvertUnitLower(decay.Diagonal(DiagonalOf(kk, warp))));
}

// The warp's 16 rows of R, up to the diagonal.
using RowsOfR = LeftTile[kBlocks];

// R_ij = scale * nq_i * n_j * qk_ij * exp(gamma_i - gamma_j) for i >= j. Only what there is: the
// warp with the least of R has the most of T.
template <typename T>
__device__ __forceinline__ void MakeR(const Square& qk, int warp, const Maker& maker, RowsOfR& r) {
  const float2 rows = RowsOf(maker.q_scale + warp * kTileDim);
  const Decay decay(maker.gamma, maker.column, maker.k_norm, warp, rows);
#pragma unroll
  for (int j = 0; j < kBlocks - 1; ++j) {
    if (j < warp) r[j] = PackLeft<T>(decay.Left(SumOf(qk, j), j));
  }
  r[kBlocks - 1] = PackLeft<T>(Lower(decay.Diagonal(DiagonalOf(qk, warp))));
}

__device__ __forceinline__ void StoreR(const RowsOfR& r, int warp, Maker& maker) {
  const PanelLane to(NotBefore(SharedAddress(maker.r)));
#pragma unroll
  for (int j = 0; j < kBlocks - 1; ++j) {
    if (j < warp) to.Store(r[j], warp * kTileDim, j);
  }
  to.Store(r[kBlocks - 1], warp * kTileDim, warp);
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
                                           const uint4* q_rows, int warp, float column_decay,
                                           Maker& maker, Square& qk) {
  if (std::is_same_v<T, __half>) {
    NormalizeRows<T>(k_rows, warp * kTileDim, [](int, float) {});
    AsyncProxyFence();
    MakerSync();
  }
  Square kk;
  MultiplyRows<T>(k_rows, k_rows, kk);
  const float qq = SquareOfRow<T>(q_rows, OwnToken());
  WarpgroupWait();
  WarpgroupTouch(kk);
  StoreScales<T>(p, column_decay, DiagonalOf(kk, warp), qq, maker);
  MakerSync();
  StoreLowerAndInverse(kk, warp, maker);
  MultiplyRows<T>(q_rows, k_rows, qk);
  WarpgroupWait();
  WarpgroupTouch(qk);
}

// PAD rows: o = 0, by one warp.
template <typename T>
__device__ void StoreZeros(const ChunkSm90Params& p, int64_t token, int64_t tokens, int head) {
  constexpr int kWidth = kSm90Dim * sizeof(T) / sizeof(uint4);
  T* to = static_cast<T*>(p.rule.o) + token * p.rule.o_stride + int64_t{head} * kSm90Dim;
#pragma unroll 1
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
  for (int i = static_cast<int>(threadIdx.x % kGroupThreads); i < kPanelPieces;
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

// What the copy engine brings a maker: each warp asks it for a part.
class Engine {
 public:
  __device__ Engine(const Tensors& tensors, Shared& shared, int which)
      : tensors_(tensors), shared_(shared), maker_(shared.makers[which]), which_(which) {}

  // Keys and queries of the maker's n-th chunk, by warps 2 and 3; its values will follow.
  __device__ __forceinline__ void BringKeys(int n) const {
    if (!asks() || warp() < kHalves) return;
    const Place at = maker_.places[n % kPlaces];
    const int half = warp() - kHalves;
    LoadRecord(half == 0 ? tensors_.k : tensors_.q, at.key_head, at,
               half == 0 ? maker_.k[n % 2] : maker_.q[n % 2], shared_.loaded[which_][n % 2]);
    PrefetchValues(tensors_, at, half);
  }

  // Its values, by warps 0 and 1.
  __device__ __forceinline__ void BringValues(int n) const {
    if (!asks() || warp() >= kHalves) return;
    LoadValues(tensors_, maker_.places[n % kPlaces], warp(), maker_.v, shared_.made[which_]);
  }

 private:
  static __device__ bool asks() { return threadIdx.x % 32 == 0; }
  static __device__ int warp() { return static_cast<int>(threadIdx.x % kGroupThreads / 32); }

  const Tensors& tensors_;
  Shared& shared_;
  Maker& maker_;
  int which_;
};

// Makes every other chunk's T and R, from the block's first on or from its second.
template <typename T>
__device__ void Make(const ChunkSm90Params& p, const Tensors& tensors, Shared& shared, int which) {
  Maker& maker = shared.makers[which];
  const Engine engine(tensors, shared, which);
  const int warp = GroupWarp();
  ClearPanels(maker);
  BeginPlaces<T>(p, which, maker);
  MakerSync();
  const auto load_next = [&](int n) {
    engine.BringKeys(n);
    LoadNext<T>(p, maker.places[n % kPlaces], maker.k[n % 2], maker.q[n % 2],
                shared.loaded[which][n % 2], maker);
  };
  load_next(0);
  if (threadIdx.x % kGroupThreads == 0) PrefetchState(p, maker.places[0]);
  EndLoadNext(maker.places[0]);
  const auto wait_for = [&](const uint64_t& use, int n) {
    BarrierWait(SharedAddress(&use), n % 2);
  };
  int n = 0;
  for (; maker.places[n % kPlaces].length > 0; ++n) {
    const float column_decay = SumGates(maker.next_g, warp, maker.gamma).column;
    BarrierWait(SharedAddress(&shared.loaded[which][n % 2]), n / 2 % 2);
    Square qk;
    BeginChunk<T>(p, maker.k[n % 2], maker.q[n % 2], warp, column_decay, maker, qk);
    MakerSync();
    RowsOfR r;
    MakeR<T>(qk, warp, maker, r);
    if (n > 0) wait_for(shared.read[which], n - 1);
    load_next(n + 1);
    StoreT<T>(warp, maker);
    if (warp == kStepWarp) {
      Step<T>(p, kMakers, which, maker, maker.places[(n + 2) % kPlaces]);
    }
    const OwnFactors factors = MakeFactors(maker);
    EndLoadNext(maker.places[(n + 1) % kPlaces]);
    if (n > 0) wait_for(shared.used[which], n - 1);
    engine.BringValues(n);
    StoreR(r, warp, maker);
    StoreFactors(factors, maker.factors);
    LoadFewValues<T>(p, maker.places[n % kPlaces], maker);
    AsyncProxyFence();
    BarrierArrive(SharedAddress(&shared.made[which]));
  }
  if (n > 0) wait_for(shared.used[which], n - 1);
  BarrierArrive(SharedAddress(&shared.made[which]));
}

}  // namespace gdn::cuda::fused
