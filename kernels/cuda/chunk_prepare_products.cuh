// The products of a chunk and key head that need no state, by a warpgroup: of keys and queries
// among themselves, T, X and P (chunk_sm90.h).
#pragma once

#include <type_traits>

#include "kernels/cuda/chunk_sm90.h"
#include "kernels/cuda/panel.cuh"
#include "kernels/cuda/unit_lower.cuh"
#include "kernels/cuda/warpgroup.cuh"

namespace gdn::cuda::prepare {

constexpr int kWarps = 4;  // of a group, which takes a chunk and key head by itself
constexpr int kThreads = kWarps * 32;
constexpr int kGroups = 3;                // that an SM holds, to hide one another's latencies
constexpr int kMaxHeads = kMaxItemHeads;  // value heads, one after another
constexpr int kBlocks = kChunk / kTileDim;
constexpr int kDimTiles = kSm90Dim / kTileDim;
constexpr int kRecord = 2 * kPanelPieces;  // 16-byte pieces of 64 x 128 elements
constexpr float kLog2E = 1.4426950408889634f;

// T, each column multiplied by its beta.
struct Operands {
  uint4 for_p[kPanelPieces];  // without the diagonal, in a panel
  // Each row multiplied by its decay too, the transpose's tiles as left ones: [rows of T][columns].
  uint4 for_x[kBlocks][kBlocks][32];
  uint4 rest_for_x[kBlocks][32];  // what rounding has taken from the diagonal
};

struct alignas(1024) Shared {
  uint4 k[2][kRecord];  // of this item and of the next
  uint4 q[kRecord];
  union {
    float lower[kChunk * kLowerStride];  // A, then its inverse T
    Operands operands;                   // then that as operands
    uint4 x[kRecord];                    // then X
  };
  float k_norm[kChunk];
  float q_scale[kChunk];               // scale * nq
  float gamma[kMaxHeads][kChunk];      // / ln 2
  float beta[kMaxHeads][kChunk];       // 0 beyond the row's end
  float decay[kMaxHeads][kChunk];      // n_i * d_i
  float next_g[kMaxHeads][kChunk];     // of the next item
  float next_beta[kMaxHeads][kChunk];  // likewise
};

__device__ __forceinline__ int GroupWarp() {
  return __shfl_sync(~0u, static_cast<int>(threadIdx.x % kThreads / 32), 0);  // uniform
}
__device__ __forceinline__ void GroupSync() {
  NamedBarrier(1 + static_cast<int>(threadIdx.x) / kThreads, kThreads);
}

// A lane's tokens, 2l and 2l + 1, of one head.
struct LaneGates {
  float2 g;
  float2 beta;
};

// g and beta of a head, by one warp.
__device__ __forceinline__ LaneGates GatesOf(const ChunkSm90Params& p, const Shared& shared,
                                             int head, int length) {
  const int lane = threadIdx.x % 32;
  LaneGates gates = {};
  if (p.rule.g != nullptr) gates.g = reinterpret_cast<const float2*>(shared.next_g[head])[lane];
  if (p.rule.beta != nullptr) {
    gates.beta = reinterpret_cast<const float2*>(shared.next_beta[head])[lane];
  } else {
    gates.beta = {2 * lane < length ? 1.0f : 0.0f, 2 * lane + 1 < length ? 1.0f : 0.0f};
  }
  return gates;
}

// gamma from g.
__device__ __forceinline__ float2 Sums(const float2& g) {
  const int lane = threadIdx.x % 32;
  float sum = g.x + g.y;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const float below = __shfl_up_sync(~0u, sum, step);
    if (lane >= step) sum += below;
  }
  return {(sum - g.y) * kLog2E, sum * kLog2E};
}

// Leaves what depends on the gates of a head in shared memory and in the workspace, by one warp.
__device__ __forceinline__ void StoreGates(const LaneGates& lane_gates, int head, Shared& shared,
                                           ChunkFactors& factors) {
  const int lane = threadIdx.x % 32;
  const float2 gamma = Sums(lane_gates.g);
  const float2 beta = lane_gates.beta;
  const float last = __shfl_sync(~0u, gamma.y, 31);
  const float2 norm = reinterpret_cast<const float2*>(shared.k_norm)[lane];
  const float2 q_scale = reinterpret_cast<const float2*>(shared.q_scale)[lane];
  const float2 decay = {Exp2(gamma.x), Exp2(gamma.y)};
  reinterpret_cast<float2*>(shared.gamma[head])[lane] = gamma;
  reinterpret_cast<float2*>(shared.beta[head])[lane] = beta;
  reinterpret_cast<float2*>(shared.decay[head])[lane] = {norm.x * Exp2(last - gamma.x),
                                                         norm.y * Exp2(last - gamma.y)};
  reinterpret_cast<float2*>(factors.for_y)[lane] = {-decay.x * norm.x, -decay.y * norm.y};
  reinterpret_cast<float2*>(factors.for_o)[lane] = {decay.x * q_scale.x, decay.y * q_scale.y};
  if (lane == 31) factors.decay = decay.y;
}

__device__ __forceinline__ TileSum ScaleColumns(const TileSum& m, const float* factors) {
  const float2 x = reinterpret_cast<const float2*>(factors)[threadIdx.x % 4];
  const float2 y = reinterpret_cast<const float2*>(factors)[threadIdx.x % 4 + 4];
  return {{m.left[0] * x.x, m.left[1] * x.y, m.left[2] * x.x, m.left[3] * x.y},
          {m.right[0] * y.x, m.right[1] * y.y, m.right[2] * y.x, m.right[3] * y.y}};
}

__device__ __forceinline__ TileSum ScaleRows(const TileSum& m, float top, float bottom) {
  return {{m.left[0] * top, m.left[1] * top, m.left[2] * bottom, m.left[3] * bottom},
          {m.right[0] * top, m.right[1] * top, m.right[2] * bottom, m.right[3] * bottom}};
}

// Calls f(row, e) where the lane has the diagonal of a tile: in element e of left at its row `row`,
// in element 2 + e of right eight rows below.
template <typename F>
__device__ __forceinline__ void OnDiagonal(F&& f) {
  const int row = threadIdx.x % 32 / 4;
#pragma unroll
  for (int e = 0; e < 2; ++e) {
    if (row == threadIdx.x % 4 * 2 + e) f(row, e);
  }
}

// 64 x 64 sums of a warpgroup, a warp's 16 rows: tiles of 16 columns, of which those up to the
// diagonal's count.
using Square = float[kChunk / 2];

// Of the warp's 16 rows as they come, k kᵀ and q kᵀ, and q qᵀ of the diagonal's tile alone.
template <typename T>
__device__ __forceinline__ void MultiplyRows(const uint4* k_rows, const uint4* q_rows, Square& kk,
                                             Square& qk, TileSum& qq) {
  const uint64_t k = RowsAreN(SharedAddress(k_rows));
  const uint64_t q = RowsAreN(SharedAddress(q_rows));
  const auto step = [](int c) { return c / 4 * (kPanelBytes / 16) + c % 4 * 2; };
  WarpgroupFence();
  WarpgroupMmaShared<T, false>(kk, k, k);
#pragma unroll
  for (int c = 1; c < kDimTiles; ++c) WarpgroupMmaShared<T>(kk, k + step(c), k + step(c));
  WarpgroupMmaShared<T, false>(qk, q, k);
#pragma unroll
  for (int c = 1; c < kDimTiles; ++c) WarpgroupMmaShared<T>(qk, q + step(c), k + step(c));
  WarpgroupCommit();
  const PanelLane rows(SharedAddress(q_rows));
#pragma unroll
  for (int c = 0; c < kDimTiles; ++c) {
    const Tile tile = rows.Load(GroupWarp() * kTileDim, c);
    MultiplyAdd<T>(qq, {{tile.x, tile.z, tile.y, tile.w}}, tile);
  }
  WarpgroupWait();
  WarpgroupTouch(kk);
  WarpgroupTouch(qk);
}

// The norms' inverses, from the products of rows with themselves. Keys of fp16 have theirs already.
template <typename T>
__device__ __forceinline__ void StoreNorms(const ChunkSm90Params& p, const TileSum& kk,
                                           const TileSum& qq, Shared& shared) {
  const auto inverse = [&](float sum) {
    return p.rule.qk_l2norm ? InverseRoot(sum + kL2NormEps) : 1.0f;
  };
  constexpr bool kHave = std::is_same_v<T, __half>;
  const int first = GroupWarp() * kTileDim;
  OnDiagonal([&](int row, int e) {
    row += first;
    shared.k_norm[row] = kHave ? 1.0f : inverse(kk.left[e]);
    shared.k_norm[row + 8] = kHave ? 1.0f : inverse(kk.right[2 + e]);
    shared.q_scale[row] = p.rule.scale * inverse(qq.left[e]);
    shared.q_scale[row + 8] = p.rule.scale * inverse(qq.right[2 + e]);
  });
}

// kk_ij *= n_i * n_j,  qk_ij *= scale * nq_i * n_j
__device__ __forceinline__ void ScaleProducts(const Shared& shared, Square& kk, Square& qk) {
  const int row = GroupWarp() * kTileDim + threadIdx.x % 32 / 4;
  const auto scale = [&](Square& d, int j, const float* rows) {
    SetSum(d, j,
           ScaleRows(ScaleColumns(SumOf(d, j), shared.k_norm + j * kTileDim), rows[row],
                     rows[row + 8]));
  };
#pragma unroll
  for (int j = 0; j < kBlocks; ++j) {
    scale(kk, j, shared.k_norm);
    scale(qk, j, shared.q_scale);
  }
}

// What the lane's tokens are multiplied by: rows i and i + 8, columns 16j + 2t + {0, 1, 8, 9}.
struct LaneFactors {
  float2 rows;
  float4 columns[kBlocks];

  explicit __device__ LaneFactors(const float* factors) {
    const int row = GroupWarp() * kTileDim + threadIdx.x % 32 / 4;
    rows = {factors[row], factors[row + 8]};
#pragma unroll
    for (int j = 0; j < kBlocks; ++j) {
      const float2* pairs = reinterpret_cast<const float2*>(factors + j * kTileDim);
      const float2 left = pairs[threadIdx.x % 4];
      const float2 right = pairs[threadIdx.x % 4 + 4];
      columns[j] = {left.x, left.y, right.x, right.y};
    }
  }
};

// d_ij * exp(gamma_i - gamma_j) of a tile; above the diagonal it is of no use and may not be
// finite.
__device__ __forceinline__ TileSum Decayed(const TileSum& d, const LaneFactors& gamma, int j) {
  const auto [i0, i1] = gamma.rows;
  const float4 c = gamma.columns[j];
  return {{d.left[0] * Exp2(i0 - c.x), d.left[1] * Exp2(i0 - c.y), d.left[2] * Exp2(i1 - c.x),
           d.left[3] * Exp2(i1 - c.y)},
          {d.right[0] * Exp2(i0 - c.z), d.right[1] * Exp2(i0 - c.w), d.right[2] * Exp2(i1 - c.z),
           d.right[3] * Exp2(i1 - c.w)}};
}

// A_ij = beta_i * kk_ij * exp(gamma_i - gamma_j) for i > j; what is not below the diagonal is never
// read.
__device__ __forceinline__ void StoreLower(const Square& kk, const LaneFactors& gamma,
                                           const float* beta, float* lower) {
  const int row = GroupWarp() * kTileDim + threadIdx.x % 32 / 4;
  const float top = beta[row];
  const float bottom = beta[row + 8];
  float* to = lower + row * kLowerStride + threadIdx.x % 4 * 2;
#pragma unroll
  for (int j = 0; j < kBlocks; ++j) {
    const TileSum a = ScaleRows(Decayed(SumOf(kk, j), gamma, j), top, bottom);
    float2* pairs = reinterpret_cast<float2*>(to + j * kTileDim);
    pairs[0] = {a.left[0], a.left[1]};
    pairs[4] = {a.right[0], a.right[1]};
    pairs[4 * kLowerStride] = {a.left[2], a.left[3]};
    pairs[4 * kLowerStride + 4] = {a.right[2], a.right[3]};
  }
}

// T as operands, in its place; a warp takes its 16 rows.
template <typename T>
__device__ __forceinline__ void PackInverse(Shared& shared, const float* beta, const float* decay) {
  const int warp = GroupWarp();
  const int lane = threadIdx.x % 32;
  TileSum m[kBlocks];  // of the transpose
#pragma unroll
  for (int j = 0; j < kBlocks; ++j) {
    if (j <= warp) {
      m[j] = LoadSumTransposed(shared.lower + warp * kTileDim * kLowerStride + j * kTileDim);
    }
  }
  GroupSync();
  Operands& to = shared.operands;
  const PanelLane for_p(SharedAddress(to.for_p));
#pragma unroll
  for (int j = 0; j < kBlocks; ++j) {
    const int column = j * kTileDim + lane / 4;
    if (j <= warp) {
      m[j] = ScaleRows(m[j], beta[column], beta[column + 8]);
      const TileSum for_x = ScaleColumns(m[j], decay + warp * kTileDim);
      const LeftTile packed = PackLeft<T>(for_x);
      to.for_x[warp][j][lane] = packed.r;
      if (j == warp) {
        TileSum rest;
        const float2 top = Unpack(packed.r.x, T{});
        const float2 bottom = Unpack(packed.r.w, T{});
        OnDiagonal([&](int, int e) {
          rest.left[e] = for_x.left[e] - (e == 0 ? top.x : top.y);
          rest.right[2 + e] = for_x.right[2 + e] - (e == 0 ? bottom.x : bottom.y);
          m[j].left[e] = m[j].right[2 + e] = 0.0f;
        });
        to.rest_for_x[warp][lane] = PackLeft<T>(rest).r;
      }
    }
    for_p.StoreTransposed(PackTile<T>(m[j]), warp * kTileDim, j);
  }
  AsyncProxyFence();
}

// Tiles of T for X, rows 16i.. and the warp's 16 columns, and what rounding has taken of them.
using XOperands = uint4[kBlocks + 1];

__device__ __forceinline__ void LoadXOperands(const Operands& from, XOperands& m) {
  const int warp = GroupWarp();
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int i = 0; i < kBlocks; ++i) m[i] = i < warp ? uint4{} : from.for_x[i][warp][lane];
  m[kBlocks] = from.rest_for_x[warp][lane];
}

// X_j = beta_j * sum over i >= j of T_ij * decay_i * k_i in panels, a warp taking its 16 rows. The
// first term, all of it where gates decay fast or keys are far apart, is thus rounded only once.
template <typename T>
__device__ __forceinline__ void StoreX(XOperands& m, const uint4* k_rows, uint4* to) {
  const int warp = GroupWarp();
  const uint64_t k = RowsAreK(SharedAddress(k_rows));
  const PanelLane x_to(SharedAddress(to));
  uint4 rest[kBlocks];
#pragma unroll
  for (int i = 0; i < kBlocks; ++i) rest[i] = i == warp ? m[kBlocks] : uint4{};
  WarpgroupTouch(m);
  WarpgroupTouch(rest);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    Square x;
    const auto keys = [&](int i) {
      return k + (half * kPanelBytes + i * kTileDim * kPanelRowBytes) / 16;
    };
    WarpgroupFence();
    WarpgroupMmaRowsAreK<T, false>(x, m[0], keys(0));
#pragma unroll
    for (int i = 1; i < kBlocks; ++i) WarpgroupMmaRowsAreK<T>(x, m[i], keys(i));
#pragma unroll
    for (int i = 0; i < kBlocks; ++i) WarpgroupMmaRowsAreK<T>(x, rest[i], keys(i));
    WarpgroupCommit();
    WarpgroupWait();
    WarpgroupTouch(x);
#pragma unroll
    for (int c = 0; c < kDimTiles / 2; ++c) {
      x_to.Store(PackLeft<T>(SumOf(x, c)), warp * kTileDim, half * kDimTiles / 2 + c);
    }
  }
}

// P_ij = beta_j * (R_ij + sum over l > j of R_il * T_lj) with R_il = qk_il * exp(gamma_i - gamma_l)
// for l <= i, else 0; a warp takes its 16 rows.
template <typename T>
__device__ __forceinline__ void StoreP(const Square& qk, const LaneFactors& gamma,
                                       const float* beta, const uint4* for_p, uint32_t* to) {
  const int row = GroupWarp() * kTileDim + threadIdx.x % 32 / 4;
  Square p;
  uint4 r[kBlocks];
#pragma unroll
  for (int j = 0; j < kBlocks; ++j) {
    TileSum tile = Decayed(SumOf(qk, j), gamma, j);
    const int column = j * kTileDim + threadIdx.x % 4 * 2;
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      if (column + e % 2 > row + e / 2 * 8) tile.left[e] = 0.0f;
      if (column + 8 + e % 2 > row + e / 2 * 8) tile.right[e] = 0.0f;
    }
    r[j] = PackLeft<T>(tile).r;
    SetSum(p, j, ScaleColumns(tile, beta + j * kTileDim));
  }
  const uint64_t t = RowsAreK(SharedAddress(for_p));
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
#pragma unroll
  for (int j = 0; j < kBlocks; ++j) {
    const Tile tile = PackTile<T>(SumOf(p, j));
    const auto store = [&](int row, int piece, uint32_t pair) {
      to[PanelPiece(row, piece) * 4 + threadIdx.x % 4] = pair;
    };
    store(row, 2 * j, tile.x);
    store(row, 2 * j + 1, tile.y);
    store(row + 8, 2 * j, tile.z);
    store(row + 8, 2 * j + 1, tile.w);
  }
}

}  // namespace gdn::cuda::prepare
