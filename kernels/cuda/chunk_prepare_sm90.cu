#include <algorithm>
#include <type_traits>

#include "kernels/cuda/chunk_sm90.h"
#include "kernels/cuda/chunk_tile.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/panel.cuh"
#include "kernels/cuda/unit_lower.cuh"

namespace gdn::cuda {
namespace {

constexpr int kWarps = 4;  // of a group, which takes a chunk and key head by itself
constexpr int kThreads = kWarps * 32;
constexpr int kGroups = 4;    // that an SM holds, to hide one another's latencies
constexpr int kMaxHeads = 4;  // value heads that a group takes, one after another
constexpr int kBlocks = kChunk / kTileDim;
constexpr int kDimTiles = kSm90Dim / kTileDim;
constexpr int kRecord = 2 * kPanelPieces;  // 16-byte pieces of 64 x 128 elements
constexpr float kLog2E = 1.4426950408889634f;

struct alignas(1024) Shared {
  uint4 k[kRecord];
  uint4 q[kRecord];                    // then X of one head after another
  float lower[kChunk * kLowerStride];  // A, its inverse T, then that as operands
  float k_norm[kChunk];
  float q_scale[kChunk];           // scale * nq
  float gamma[kMaxHeads][kChunk];  // / ln 2
  float beta[kMaxHeads][kChunk];   // 0 beyond the row's end
  float decay[kMaxHeads][kChunk];  // n_i * d_i
};

__device__ __forceinline__ int GroupWarp() {
  return __shfl_sync(~0u, static_cast<int>(threadIdx.x % kThreads / 32), 0);  // uniform
}
__device__ __forceinline__ void GroupSync() {
  NamedBarrier(1 + static_cast<int>(threadIdx.x) / kThreads, kThreads);
}

// The items of work, in the order in which the chain wants them: by waves of key heads, in these by
// chunks, in these by key heads and pieces of their group of value heads.
struct Items {
  unsigned chunks;
  int key_heads;
  int wave_heads;
  int group;   // value heads of a key head
  int pieces;  // of a group

  explicit __device__ Items(const ChunkSm90Params& p)
      : chunks(static_cast<unsigned>(p.chunks.count)),
        key_heads(p.rule.heads.key_heads),
        wave_heads(p.plan.wave_heads),
        group(p.rule.heads.value_heads / key_heads),
        pieces((group + kMaxHeads - 1) / kMaxHeads) {}

  __device__ unsigned count() const { return chunks * key_heads * pieces; }
};

struct Item {
  int64_t chunk;
  int key_head;
  int first_head;  // value heads first_head..first_head+heads
  int heads;
  bool first_piece;

  __device__ Item(const Items& items, unsigned n) {
    const unsigned per_wave = items.chunks * items.wave_heads * items.pieces;
    const int wave = static_cast<int>(n / per_wave);
    const unsigned rest = n % per_wave;
    const int first_key = wave * items.wave_heads;
    const unsigned width = min(items.wave_heads, items.key_heads - first_key) * items.pieces;
    chunk = rest / width;
    const int unit = static_cast<int>(rest % width);
    key_head = first_key + unit / items.pieces;
    const int piece = unit % items.pieces;
    const int most = (items.group + items.pieces - 1) / items.pieces;
    first_head = key_head * items.group + piece * most;
    heads = min(most, items.group - piece * most);
    first_piece = piece == 0;
  }

  __device__ int64_t record(const ChunkSm90Params& p, int head) const {
    return chunk * p.rule.heads.value_heads + first_head + head;
  }
};

// A lane's tokens, 2l and 2l + 1, of one head.
struct LaneGates {
  float2 gamma;
  float2 beta;
};

// gamma and beta of a head, by one warp.
__device__ __forceinline__ LaneGates LoadGates(const ChunkSm90Params& p, const ChunkTile& tile,
                                               int head) {
  const int lane = threadIdx.x % 32;
  const int64_t heads = p.rule.heads.value_heads;
  float g[2], beta[2];
#pragma unroll
  for (int e = 0; e < 2; ++e) {
    const int i = 2 * lane + e;
    const int64_t at = (tile.begin + i) * heads + head;
    const bool valid = i < tile.length;
    g[e] = valid && p.rule.g != nullptr ? p.rule.g[at] : 0.0f;
    beta[e] = !valid ? 0.0f : p.rule.beta != nullptr ? p.rule.beta[at] : 1.0f;
  }
  float sum = g[0] + g[1];
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const float below = __shfl_up_sync(~0u, sum, step);
    if (lane >= step) sum += below;
  }
  return {{(sum - g[1]) * kLog2E, sum * kLog2E}, {beta[0], beta[1]}};
}

// Leaves what depends on the gates of a head in shared memory and in the workspace, by one warp.
__device__ __forceinline__ void StoreGates(const LaneGates& lane_gates, int head, Shared& shared,
                                           ChunkFactors& factors) {
  const int lane = threadIdx.x % 32;
  const auto [gamma, beta] = lane_gates;
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

// Calls f(row, column, pair of sums) for the lane's pairs of a tile at (row, column).
template <typename Sum, typename F>
__device__ __forceinline__ void ForEachPair(Sum& s, int row, int column, F&& f) {
  const int i = row + threadIdx.x % 32 / 4;
  const int j = column + threadIdx.x % 4 * 2;
  f(i, j, s.left);
  f(i, j + 8, s.right);
  f(i + 8, j, s.left + 2);
  f(i + 8, j + 8, s.right + 2);
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

// Products of the warp's 16 rows, with the tiles of columns up to the diagonal's, as they come:
// k kᵀ, q kᵀ and, of the diagonal's tile alone, q qᵀ.
template <typename T>
__device__ __forceinline__ void MultiplyRows(const Shared& shared, TileSum (&kk)[kBlocks],
                                             TileSum (&qk)[kBlocks], TileSum& qq) {
  const int warp = GroupWarp();
  const PanelLane k(SharedAddress(shared.k));
  const PanelLane q(SharedAddress(shared.q));
#pragma unroll
  for (int c = 0; c < kDimTiles; ++c) {
    const LeftTile k_rows = k.LoadLeft(warp * kTileDim, c);
    const LeftTile q_rows = q.LoadLeft(warp * kTileDim, c);
    MultiplyAdd<T>(qq, q_rows, {q_rows.r.x, q_rows.r.z, q_rows.r.y, q_rows.r.w});
#pragma unroll
    for (int j = 0; j < kBlocks; ++j) {
      if (j > warp) break;
      const Tile columns = k.Load(j * kTileDim, c);
      MultiplyAdd<T>(kk[j], k_rows, columns);
      MultiplyAdd<T>(qk[j], q_rows, columns);
    }
  }
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
__device__ __forceinline__ void ScaleProducts(const Shared& shared, TileSum (&kk)[kBlocks],
                                              TileSum (&qk)[kBlocks]) {
  const int row = GroupWarp() * kTileDim + threadIdx.x % 32 / 4;
#pragma unroll
  for (int j = 0; j < kBlocks; ++j) {
    if (j > GroupWarp()) break;
    const float* norm = shared.k_norm + j * kTileDim;
    kk[j] = ScaleRows(ScaleColumns(kk[j], norm), shared.k_norm[row], shared.k_norm[row + 8]);
    qk[j] = ScaleRows(ScaleColumns(qk[j], norm), shared.q_scale[row], shared.q_scale[row + 8]);
  }
}

// A_ij = beta_i * kk_ij * exp(gamma_i - gamma_j) for i > j
__device__ __forceinline__ void StoreLower(const TileSum (&kk)[kBlocks], const float* gamma,
                                           const float* beta, float* lower) {
  const int warp = GroupWarp();
#pragma unroll
  for (int j0 = 0; j0 < kBlocks; ++j0) {
    if (j0 > warp) break;
    ForEachPair(kk[j0], warp * kTileDim, j0 * kTileDim, [&](int i, int j, const float* pair) {
      const float2 gamma_j = *reinterpret_cast<const float2*>(gamma + j);
      const float x = beta[i] * pair[0] * Exp2(gamma[i] - gamma_j.x);
      const float y = beta[i] * pair[1] * Exp2(gamma[i] - gamma_j.y);
      // What is not below the diagonal, and may not be finite, is never read.
      *reinterpret_cast<float2*>(lower + i * kLowerStride + j) = {x, y};
    });
  }
}

// T as operands, in place of its rows 16 * i..: of its transpose, the tile at rows j and columns i,
// each row multiplied by its beta. As a left one for X each column is multiplied by its decay too,
// and a tile of its own has what rounding has taken from the diagonal. As a right one for P it is
// without the diagonal.
enum Packed { kForX = 0, kForP = kBlocks, kDiagonalForX = 2 * kBlocks };
__device__ __forceinline__ uint4* PackedInverse(float* lower, int i, int tile) {
  return reinterpret_cast<uint4*>(lower + i * kTileDim * kLowerStride) + tile * 32 +
         threadIdx.x % 32;
}

// A warp takes its 16 rows of T.
template <typename T>
__device__ __forceinline__ void PackInverse(float* lower, const float* beta, const float* decay) {
  const int warp = GroupWarp();
  const int row = threadIdx.x % 32 / 4;
  TileSum m[kBlocks];
#pragma unroll
  for (int j = 0; j < kBlocks; ++j) {
    if (j <= warp) {
      m[j] = LoadSumTransposed(lower + warp * kTileDim * kLowerStride + j * kTileDim);
    }
  }
  __syncwarp();
#pragma unroll
  for (int j = 0; j < kBlocks; ++j) {
    if (j > warp) break;
    m[j] = ScaleRows(m[j], beta[j * kTileDim + row], beta[j * kTileDim + row + 8]);
    const TileSum for_x = ScaleColumns(m[j], decay + warp * kTileDim);
    const LeftTile packed = PackLeft<T>(for_x);
    *PackedInverse(lower, warp, kForX + j) = packed.r;
    if (j == warp) {
      TileSum rest;
      const float2 top = Unpack(packed.r.x, T{});
      const float2 bottom = Unpack(packed.r.w, T{});
      OnDiagonal([&](int, int e) {
        rest.left[e] = for_x.left[e] - (e == 0 ? top.x : top.y);
        rest.right[2 + e] = for_x.right[2 + e] - (e == 0 ? bottom.x : bottom.y);
        m[j].left[e] = m[j].right[2 + e] = 0.0f;
      });
      *PackedInverse(lower, warp, kDiagonalForX) = PackLeft<T>(rest).r;
    }
    *PackedInverse(lower, warp, kForP + j) = PackTile<T>(m[j]);
  }
}

// The sums of 32 columns side by side are rows g and g + 8 of eight columns each; lane t of a quad
// has two of each eight. Gathers eight for lane t, the t-th: of row g, then of row g + 8.
template <typename T>
__device__ __forceinline__ void GatherRows(const TileSum& first, const TileSum& second,
                                           uint4 (&rows)[2]) {
  const int t = threadIdx.x % 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const auto pack = [&](const float* sum) {
      return PackPair<T>(sum[2 * half], sum[2 * half + 1]);
    };
    uint32_t x[4] = {pack(first.left), pack(first.right), pack(second.left), pack(second.right)};
    // A transposition of 4 x 4 in two exchanges: with the lane 2 away, then with the one beside.
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const uint32_t got = __shfl_xor_sync(~0u, t < 2 ? x[e + 2] : x[e], 2);
      (t < 2 ? x[e + 2] : x[e]) = got;
    }
#pragma unroll
    for (int e = 0; e < 4; e += 2) {
      const uint32_t got = __shfl_xor_sync(~0u, t % 2 == 0 ? x[e + 1] : x[e], 1);
      (t % 2 == 0 ? x[e + 1] : x[e]) = got;
    }
    rows[half] = {x[0], x[1], x[2], x[3]};
  }
}

// 16 rows, 32 columns from piece `piece` on, to a record of panels.
template <typename T>
__device__ __forceinline__ void StoreSums(const TileSum& first, const TileSum& second, int row,
                                          int piece, uint4* to) {
  const int lane = threadIdx.x % 32;
  uint4 rows[2];
  GatherRows<T>(first, second, rows);
  to[PanelPiece(row + lane / 4, piece + lane % 4)] = rows[0];
  to[PanelPiece(row + lane / 4 + 8, piece + lane % 4)] = rows[1];
}

// X_j = beta_j * sum over i >= j of T_ij * decay_i * k_i in panels, a warp taking 32 columns. The
// first term, all of it where gates decay fast or keys are far apart, is thus rounded only once.
template <typename T>
__device__ __forceinline__ void MultiplyX(float* lower, const PanelLane& k, const PanelLane& x_to) {
  constexpr int kMine = kDimTiles / kWarps;
  const int first = GroupWarp() * kMine;
#pragma unroll
  for (int j = 0; j < kBlocks; ++j) {
    TileSum x[kMine];
#pragma unroll
    for (int i = j; i < kBlocks; ++i) {
      const LeftTile m = {*PackedInverse(lower, i, kForX + j)};
#pragma unroll
      for (int c = 0; c < kMine; ++c) {
        const Tile keys = k.LoadTransposed(i * kTileDim, first + c);
        MultiplyAdd<T>(x[c], m, keys);
        if (i == j) MultiplyAdd<T>(x[c], {*PackedInverse(lower, i, kDiagonalForX)}, keys);
      }
    }
#pragma unroll
    for (int c = 0; c < kMine; ++c) x_to.Store(PackLeft<T>(x[c]), j * kTileDim, first + c);
  }
}

// P_ij = beta_j * (R_ij + sum over l > j of R_il * T_lj) with R_il = qk_il * exp(gamma_i - gamma_l)
// for l <= i, else 0; a warp takes its 16 rows.
template <typename T>
__device__ __forceinline__ void StoreP(const TileSum (&qk)[kBlocks], float* lower,
                                       const float* gamma, const float* beta, uint4* to) {
  const int warp = GroupWarp();
  TileSum p[kBlocks];
  LeftTile r[kBlocks];
#pragma unroll
  for (int j0 = 0; j0 < kBlocks; ++j0) {
    if (j0 > warp) break;
    p[j0] = qk[j0];
    ForEachPair(p[j0], warp * kTileDim, j0 * kTileDim, [&](int i, int j, float* pair) {
      const float2 gamma_j = *reinterpret_cast<const float2*>(gamma + j);
      pair[0] = j <= i ? pair[0] * Exp2(gamma[i] - gamma_j.x) : 0.0f;
      pair[1] = j + 1 <= i ? pair[1] * Exp2(gamma[i] - gamma_j.y) : 0.0f;
    });
    r[j0] = PackLeft<T>(p[j0]);
    p[j0] = ScaleColumns(p[j0], beta + j0 * kTileDim);
  }
#pragma unroll
  for (int l = 0; l < kBlocks; ++l) {
    if (l > warp) break;
#pragma unroll
    for (int j = 0; j <= l; ++j) MultiplyAdd<T>(p[j], r[l], *PackedInverse(lower, l, kForP + j));
  }
#pragma unroll
  for (int j = 0; j < kBlocks; j += 2) {
    StoreSums<T>(p[j], p[j + 1], warp * kTileDim, 2 * j, to);
  }
}

// Marks the item's heads as not ready: before any of the chain's blocks can run.
__device__ __forceinline__ void ClearReady(const ChunkSm90Params& p, const Item& item) {
  const int head = static_cast<int>(threadIdx.x) % kThreads;
  if (head < item.heads) p.workspace.ready[item.record(p, head)] = 0;
}

// Begins to bring in the item's rows.
template <typename T>
__device__ __forceinline__ void LoadItem(const ChunkSm90Params& p, const Item& item,
                                         const ChunkTile& tile, Shared& shared) {
  const int64_t offset = int64_t{item.key_head} * kSm90Dim;
  LoadPanels<kThreads>(SharedAddress(shared.k),
                       static_cast<const T*>(p.rule.k) + tile.begin * p.rule.k_stride + offset,
                       p.rule.k_stride, tile.length);
  LoadPanels<kThreads>(SharedAddress(shared.q),
                       static_cast<const T*>(p.rule.q) + tile.begin * p.rule.q_stride + offset,
                       p.rule.q_stride, tile.length);
}

template <typename T>
__device__ void Prepare(const ChunkSm90Params& p, const Item& item, const ChunkTile& tile,
                        Shared& shared) {
  LoadItem<T>(p, item, tile, shared);
  // A warp sees to one head's gates; there are no more heads than warps.
  const int mine = GroupWarp();
  LaneGates gates;
  if (mine < item.heads) gates = LoadGates(p, tile, item.first_head + mine);
  CopyAsyncWait();
  GroupSync();
  if (std::is_same_v<T, __half> && p.rule.qk_l2norm) {
    NormalizeRows<T>(shared.k, mine * kTileDim);
    GroupSync();
  }
  if (item.first_piece) {
    const int64_t record = (item.chunk * p.rule.heads.key_heads + item.key_head) * kRecord;
    StorePieces<kThreads, kRecord>(shared.k, static_cast<uint4*>(p.workspace.k) + record);
    StorePieces<kThreads, kRecord>(shared.q, static_cast<uint4*>(p.workspace.q) + record);
  }
  TileSum kk[kBlocks], qk[kBlocks], qq;
  MultiplyRows<T>(shared, kk, qk, qq);
#pragma unroll
  for (int j = 0; j < kBlocks; ++j) {
    if (j == mine) StoreNorms<T>(p, kk[j], qq, shared);
  }
  GroupSync();
  ScaleProducts(shared, kk, qk);
  if (mine < item.heads) {
    StoreGates(gates, mine, shared, p.workspace.factors[item.record(p, mine)]);
  }
  GroupSync();

  const PanelLane k(SharedAddress(shared.k));
  const PanelLane x(SharedAddress(shared.q));
  const auto finish = [&](int head) {
    if (threadIdx.x % kThreads == 0) StoreRelease(p.workspace.ready + item.record(p, head), 1);
  };
  for (int i = 0; i < item.heads; ++i) {
    const int64_t record = item.record(p, i);
    const float* beta = shared.beta[i];
    StoreLower(kk, shared.gamma[i], beta, shared.lower);
    GroupSync();
    if (i > 0) finish(i - 1);
    InvertUnitLower(shared.lower, mine, GroupSync);
    PackInverse<T>(shared.lower, beta, shared.decay[i]);
    GroupSync();
    MultiplyX<T>(shared.lower, k, x);
    StoreP<T>(qk, shared.lower, shared.gamma[i], beta,
              static_cast<uint4*>(p.workspace.p) + record * (kRecord / 2));
    GroupSync();
    StorePieces<kThreads, kRecord>(shared.q, static_cast<uint4*>(p.workspace.x) + record * kRecord);
    AsyncProxyFenceGlobal();
  }
  GroupSync();
  finish(item.heads - 1);
}

// In pairs, so that what is left of the SMs has room for the chain's.
template <typename T>
__global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(kGroups* kThreads, 1)
    PrepareKernel(ChunkSm90Params p) {
  extern __shared__ __align__(1024) unsigned char dynamic[];
  const int group = static_cast<int>(threadIdx.x) / kThreads;
  Shared& shared = reinterpret_cast<Shared*>(dynamic)[group];
  GridDependencyWait();
  const Items items(p);
  const unsigned step = gridDim.x * kGroups;
  const unsigned first = group * gridDim.x + blockIdx.x;
  for (unsigned n = first; n < items.count(); n += step) ClearReady(p, Item(items, n));
  __threadfence();
  __syncthreads();
  GridDependencyLaunch();
  for (unsigned n = first; n < items.count(); n += step) {
    const Item item(items, n);
    const ChunkTile tile = TileOf(p.rule.rows, p.chunks, item.chunk);
    if (p.rule.rows.slot(tile.row) >= 0) Prepare<T>(p, item, tile, shared);
  }
}

}  // namespace

cudaError_t ChunkPrepareSm90(const ChunkSm90Params& p, cudaStream_t stream) {
  const auto kernel =
      p.rule.io == DType::kFp16 ? PrepareKernel<__half> : PrepareKernel<__nv_bfloat16>;
  return LaunchDependent(kernel, p.plan.prepare_blocks, kGroups * kThreads, kGroups * sizeof(Shared), stream, p);
}

}  // namespace gdn::cuda
