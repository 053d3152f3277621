// The products of a chunk and key head that need no state, by a warpgroup: of keys and queries
// among themselves, T, X and P (chunk_sm90.h). A warp has 16 rows of each. Of squares it looks only
// at the tiles of 16 columns up to the diagonal's.
#pragma once

#include "kernels/cuda/prefill/chunk_prepare_gates.cuh"
#include "kernels/cuda/prefill/chunk_square.cuh"

namespace gdn::cuda::prepare {

// -A_ij = -beta_i * kk_ij * exp(gamma_i - gamma_j) for i > j, left of the diagonal's tile, and the
// inverse of that.
__device__ __forceinline__ void StoreLowerAndInverse(const Square& kk, const TileSum& diagonal,
                                                     int head, int warp, const float* betas,
                                                     Shared& shared) {
  const float2 beta = RowsOf(betas + warp * kTileDim);
  const float2 norm = RowsOf(shared.k_norm + warp * kTileDim);
  const Decay decay = DecayOf(shared, head, warp, {-beta.x * norm.x, -beta.y * norm.y});
  LowerTiles& lower = shared.lower[head];
#pragma unroll
  for (int j = 0; j < kBlocks - 1; ++j) {
    if (j < warp) lower.Store(warp, j, decay.Left(SumOf(kk, j), j));
  }
  lower.StoreDiagonal(warp, InvertUnitLower(decay.Diagonal(diagonal)));
}

// T's tiles of rows 16i.. and the warp's 16 columns, transposed, as left operands for X: columns
// times decay, rows times beta; and what rounding has taken from the diagonal in the lane's rows.
struct XOperands {
  uint4 tiles[kBlocks];
  float2 rest;
};

// x - rounded on the diagonal of a tile, of the lane's two rows.
__device__ __forceinline__ float2 RestOfDiagonal(const TileSum& x, const TileSum& rounded) {
  const int lane = threadIdx.x % 32;
  const int row = lane / 4;
  const bool odd = row % 2 != 0;
  const float top = odd ? x.left[1] - rounded.left[1] : x.left[0] - rounded.left[0];
  const float bottom = odd ? x.right[3] - rounded.right[3] : x.right[2] - rounded.right[2];
  const int from = row * 4 + row / 2;  // the lane of the row that has its diagonal
  return {__shfl_sync(~0u, top, from), __shfl_sync(~0u, bottom, from)};
}

// T of a head: its columns for X, and those without the diagonal in a panel for P.
template <typename T>
__device__ __forceinline__ void Invert(int head, int warp, const float* betas, Shared& shared,
                                       XOperands& for_x) {
  const PanelLane for_p(SharedAddress(shared.after.t));
  const float2 beta = RowsOf(betas + warp * kTileDim);
  const float* decay = shared.decay[head];
#pragma unroll
  for (int i = 0; i < kBlocks - 1; ++i) {
    if (i < warp) {
      for_x.tiles[i] = {};
      for_p.StoreTransposed({}, i * kTileDim, warp);
    }
  }
  InvertColumns(shared.lower[head], warp, [&](int i, const TileSum& u) {
    TileSum m = Scaled(u, beta);
    const TileSum x = Scaled(m, ColumnsOf(decay + i * kTileDim));
    const LeftTile packed = PackLeft<T>(x);
    for_x.tiles[i] = packed.r;
    if (i == warp) {
      for_x.rest = RestOfDiagonal(x, UnpackLeft<T>(packed));
      OnDiagonal([&](int e) { m.left[e] = m.right[2 + e] = 0.0f; });
    }
    for_p.StoreTransposed(PackTile<T>(m), i * kTileDim, warp);
  });
}

// P_ij = beta_j * (R_ij + sum over l > j of R_il * T_lj) with R_il = qk_il * exp(gamma_i - gamma_l)
// for l <= i, else 0: the first term and R.
struct POperands {
  Square p;
  uint4 r[kBlocks];
};

template <typename T>
__device__ __forceinline__ void BeginP(const Square& qk, int head, int warp, const float* betas,
                                       const Shared& shared, POperands& to) {
  const Decay decay = DecayOf(shared, head, warp, RowsOf(shared.q_scale + warp * kTileDim));
  const auto set = [&](int j, const TileSum& r) {
    to.r[j] = PackLeft<T>(r).r;
    SetSum(to.p, j, Scaled(r, ColumnsOf(betas + j * kTileDim)));
  };
  const TileSum diagonal = Lower(decay.Diagonal(DiagonalOf(qk, warp)));
#pragma unroll
  for (int j = 0; j < kBlocks; ++j) {
    if (j < warp) {
      set(j, decay.Left(SumOf(qk, j), j));
    } else if (j == warp) {
      set(j, diagonal);
    } else {
      to.r[j] = {};
      SetSum(to.p, j, {});
    }
  }
}

template <typename T>
__device__ __forceinline__ void MultiplyP(POperands& m, const uint4* t_rows) {
  const uint64_t t = RowsAreK(SharedAddress(t_rows));
  WarpgroupTouch(m.r);
  WarpgroupTouch(m.p);
  WarpgroupFence();
#pragma unroll
  for (int l = 0; l < kBlocks; ++l) {
    WarpgroupMmaRowsAreK<T>(m.p, m.r[l], t + l * (kTileDim * kPanelRowBytes / 16));
  }
  WarpgroupCommit();
}

template <typename T>
__device__ __forceinline__ void SendP(POperands& m, Outbox& outbox, uint4* to) {
  const PanelLane out(outbox.Next());
  WarpgroupTouch(m.p);
#pragma unroll
  for (int j = 0; j < kBlocks; ++j) out.Store(PackLeft<T>(SumOf(m.p, j)), 0, j);
  outbox.Send(to);
}

// X_j = beta_j * sum over i >= j of T_ij * decay_i * k_i, 64 of its columns. The first term, all of
// it where gates decay fast or keys are far apart, is rounded only once.
template <typename T>
__device__ __forceinline__ void MultiplyX(XOperands& m, const uint4* k_panel, Square& x) {
  const uint64_t k = RowsAreK(SharedAddress(k_panel));
  WarpgroupTouch(m.tiles);
  WarpgroupFence();
  WarpgroupMmaRowsAreK<T, false>(x, m.tiles[0], k);
#pragma unroll
  for (int i = 1; i < kBlocks; ++i) {
    WarpgroupMmaRowsAreK<T>(x, m.tiles[i], k + i * (kTileDim * kPanelRowBytes / 16));
  }
  WarpgroupCommit();
}

// The warp's rows of half a key.
using OwnKeys = LeftTile[kDimTiles / 2];
__device__ __forceinline__ void LoadOwnKeys(int warp, const uint4* k_panel, OwnKeys& keys) {
  const PanelLane rows(SharedAddress(k_panel));
#pragma unroll
  for (int c = 0; c < kDimTiles / 2; ++c) keys[c] = rows.LoadLeft(warp * kTileDim, c);
}

template <typename T>
__device__ __forceinline__ void SendX(const XOperands& m, const OwnKeys& keys, Square& x,
                                      Outbox& outbox, uint4* to) {
  const PanelLane out(outbox.Next());
  WarpgroupTouch(x);
#pragma unroll
  for (int c = 0; c < kDimTiles / 2; ++c) {
    const TileSum sum = AddScaled(SumOf(x, c), UnpackLeft<T>(keys[c]), m.rest);
    out.Store(PackLeft<T>(sum), 0, c);
  }
  outbox.Send(to);
}

}  // namespace gdn::cuda::prepare
