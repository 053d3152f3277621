// The products of a chunk and key head that need no state, by a warpgroup: of keys and queries
// among themselves, T, X and P (chunk_sm90.h). A warp has 16 rows of each. Of squares it looks only
// at the tiles of 16 columns up to the diagonal's.
#pragma once

#include "kernels/cuda/prefill/chunk_prepare_gates.cuh"
#include "kernels/cuda/prefill/chunk_square.cuh"

namespace gdn::cuda::prepare {

// -A_ij = -beta_i * kk_ij * exp(gamma_i - gamma_j) for i > j; what is not below the diagonal is
// never read.
__device__ __forceinline__ void StoreLower(const Square& kk, const TileSum& diagonal, int head,
                                           int warp, const float* betas, Shared& shared) {
  const float2 beta = RowsOf(betas + warp * kTileDim);
  const float2 norm = RowsOf(shared.k_norm + warp * kTileDim);
  const Decay decay = DecayOf(shared, head, warp, {-beta.x * norm.x, -beta.y * norm.y});
  LowerTiles& lower = shared.lower[head];
#pragma unroll
  for (int j = 0; j < kBlocks - 1; ++j) {
    if (j < warp) lower.Store(warp, j, decay.Left(SumOf(kk, j), j));
  }
  StoreSum(decay.Diagonal(diagonal), lower.diagonal[warp]);
}

// T's tiles of rows 16i.. and the warp's 16 columns, transposed, as left operands for X: columns
// times decay, rows times beta; and what rounding has taken from the diagonal.
struct XOperands {
  uint4 tiles[kBlocks];
  uint2 rest;  // its quarters that have a diagonal
};

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
      TileSum rest;  // nothing but its diagonal
      const float2 top = Unpack(packed.r.x, T{});
      const float2 bottom = Unpack(packed.r.w, T{});
      OnDiagonal([&](int, int e) {
        rest.left[e] = x.left[e] - (e == 0 ? top.x : top.y);
        rest.right[2 + e] = x.right[2 + e] - (e == 0 ? bottom.x : bottom.y);
        m.left[e] = m.right[2 + e] = 0.0f;
      });
      for_x.rest = {PackPair<T>(rest.left[0], rest.left[1]),
                    PackPair<T>(rest.right[2], rest.right[3])};
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

template <typename T>
__device__ __forceinline__ void SendX(const XOperands& m, int warp, const uint4* k_panel, Square& x,
                                      Outbox& outbox, uint4* to) {
  const PanelLane rows(SharedAddress(k_panel));
  const LeftTile rest = {{m.rest.x, 0, 0, m.rest.y}};
  const PanelLane out(outbox.Next());
  WarpgroupTouch(x);
#pragma unroll
  for (int c = 0; c < kDimTiles / 2; ++c) {
    MultiplyAdd<T>(x, c, rest, rows.LoadTransposed(warp * kTileDim, c));
    out.Store(PackLeft<T>(SumOf(x, c)), 0, c);
  }
  outbox.Send(to);
}

}  // namespace gdn::cuda::prepare
