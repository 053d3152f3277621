#include <algorithm>
#include <type_traits>

#include "kernels/cuda/chunk_sm90.h"
#include "kernels/cuda/chunk_tile.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/tile_rows.cuh"
#include "kernels/cuda/unit_lower.cuh"

namespace gdn::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * 32;
constexpr int kMaxHeads = 4;  // value heads that a block takes, one after another
constexpr int kBlocks = kChunk / kTileDim;
constexpr int kDimTiles = kSm90Dim / kTileDim;
constexpr int kRecord = kBlocks * kDimTiles * 32;  // 16-byte pieces of 64 x 128 elements
constexpr float kLog2E = 1.4426950408889634f;

struct Shared {
  unsigned char k[kChunk * kRowBytes];
  unsigned char v[kChunk * kRowBytes];
  float lower[kChunk * kLowerStride];  // A, its inverse, then that as operands
  float norm[kChunk];
  float gamma[kMaxHeads][kChunk];  // / ln 2
  float for_u[kMaxHeads][kChunk];  // beta * norm
  float for_w[kMaxHeads][kChunk];  // -beta * norm² * exp(gamma)
};

// Where a block works: chunk, key head and, of its group, value heads first_head..first_head+heads.
struct Work {
  int64_t chunk;
  int key_head;
  int first_head;
  int heads;
  ChunkTile tile;

  __device__ int64_t record(const ChunkSm90Params& p, int index) const {
    return chunk * p.rule.heads.value_heads + first_head + index;
  }
};

// A lane's tokens, 2l and 2l + 1, of one head.
struct LaneGates {
  float2 gamma;
  float2 beta;
};

// gamma and beta of a head, by one warp.
__device__ __forceinline__ LaneGates LoadGates(const ChunkSm90Params& p, const Work& work,
                                               int index) {
  const int lane = threadIdx.x % 32;
  const int64_t heads = p.rule.heads.value_heads;
  float g[2], beta[2];
#pragma unroll
  for (int e = 0; e < 2; ++e) {
    const int i = 2 * lane + e;
    const int64_t at = (work.tile.begin + i) * heads + work.first_head + index;
    const bool valid = i < work.tile.length;
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

// Leaves what depends on the gates in shared memory and in the gates' record, by one warp.
__device__ __forceinline__ void StoreGates(const ChunkSm90Params& p, const Work& work, int index,
                                           const LaneGates& lane_gates, Shared& shared) {
  const int lane = threadIdx.x % 32;
  const auto [gamma, beta] = lane_gates;
  const float last = __shfl_sync(~0u, gamma.y, 31);
  const float2 norm = reinterpret_cast<const float2*>(shared.norm)[lane];
  const float2 for_u = {beta.x * norm.x, beta.y * norm.y};
  ChunkGates& gates = p.workspace.gates[work.record(p, index)];
  reinterpret_cast<float2*>(gates.gamma)[lane] = gamma;
  reinterpret_cast<float2*>(gates.decay)[lane] = {Exp2(last - gamma.x), Exp2(last - gamma.y)};
  reinterpret_cast<float2*>(shared.gamma[index])[lane] = gamma;
  reinterpret_cast<float2*>(shared.for_u[index])[lane] = for_u;
  reinterpret_cast<float2*>(shared.for_w[index])[lane] = {-for_u.x * norm.x * Exp2(gamma.x),
                                                          -for_u.y * norm.y * Exp2(gamma.y)};
}

// Normalises the warp's 16 rows of k, or leaves their factors in `norm`.
template <typename T>
__device__ __forceinline__ void NormalizeKeys(bool l2norm, uint32_t k, float* norm) {
  const int first = threadIdx.x / 32 * kTileDim;
  constexpr bool kInPlace = std::is_same_v<T, __half>;
  if (l2norm && !kInPlace) {
    RowScales<T>(k, first, norm);
    return;
  }
  if (l2norm) NormalizeRows<T>(k, first);
  if (threadIdx.x % 32 < kTileDim) norm[first + threadIdx.x % 32] = 1.0f;
}

// The place of row `row` and 16-byte piece `piece` among the two panels of a [64, 128] record.
__device__ __forceinline__ int PanelPiece(int row, int piece) {
  return (piece / 8 * kChunk + row) * 8 + ((piece ^ row) & 7);
}

// k as it is in shared memory.
__device__ __forceinline__ void StoreKeys(const ChunkSm90Params& p, const Work& work,
                                          const Shared& shared) {
  const int64_t record = work.chunk * p.rule.heads.key_heads + work.key_head;
  uint4* to = static_cast<uint4*>(p.workspace.k) + record * kRecord;
#pragma unroll
  for (int e = threadIdx.x; e < kRecord; e += kThreads) {
    const int row = e / (kRowBytes / 16);
    const int place = e % (kRowBytes / 16);  // permuted alike here and there
    to[(place / 8 * kChunk + row) * 8 + place % 8] = reinterpret_cast<const uint4*>(shared.k)[e];
  }
}

// Calls f(row, column, pair of sums) for the lane's pairs of a tile at (row, column).
template <typename F>
__device__ __forceinline__ void ForEachPair(TileSum& s, int row, int column, F&& f) {
  const int i = row + threadIdx.x % 32 / 4;
  const int j = column + threadIdx.x % 4 * 2;
  f(i, j, s.left);
  f(i, j + 8, s.right);
  f(i + 8, j, s.left + 2);
  f(i + 8, j + 8, s.right + 2);
}

// norm_i * (k_i · k_j): rows 16 * warp.. of it, columns up to the diagonal's tile.
template <typename T>
__device__ __forceinline__ void MultiplyKeys(const LaneAddress& k, const float* norm,
                                             TileSum (&kk)[kBlocks]) {
  const int warp = threadIdx.x / 32;
#pragma unroll
  for (int c = 0; c < kDimTiles; ++c) {
    const LeftTile a = LoadLeft16(k, warp * kTileDim, c);
#pragma unroll
    for (int j = 0; j < kBlocks; ++j) {
      if (j <= warp) MultiplyAdd<T>(kk[j], a, LoadTile16(k, j * kTileDim, c));
    }
  }
#pragma unroll
  for (int j0 = 0; j0 < kBlocks; ++j0) {
    ForEachPair(kk[j0], warp * kTileDim, j0 * kTileDim, [&](int i, int, float* pair) {
      pair[0] *= norm[i];
      pair[1] *= norm[i];
    });
  }
}

// A_ij = beta_i * norm_i² * (k_i · k_j) * exp(gamma_i - gamma_j) for i > j
__device__ __forceinline__ void StoreLower(TileSum (&kk)[kBlocks], const float* gamma,
                                           const float* for_u, float* lower) {
  const int warp = threadIdx.x / 32;
#pragma unroll
  for (int j0 = 0; j0 < kBlocks; ++j0) {
    if (j0 > warp) break;
    ForEachPair(kk[j0], warp * kTileDim, j0 * kTileDim, [&](int i, int j, const float* pair) {
      const float2 gamma_j = *reinterpret_cast<const float2*>(gamma + j);
      const float x = for_u[i] * pair[0] * Exp2(gamma[i] - gamma_j.x);
      const float y = for_u[i] * pair[1] * Exp2(gamma[i] - gamma_j.y);
      // What is not below the diagonal, and may not be finite, is never read.
      *reinterpret_cast<float2*>(lower + i * kLowerStride + j) = {x, y};
    });
  }
}

// The inverse M as operands, in place of its rows 16 * i..: tile (i, j) of M * diag(for_w) as a
// left one, of (M - I) * diag(for_u) as a right one.
__device__ __forceinline__ uint4* PackedInverse(float* lower, int i, int j, bool for_u) {
  return reinterpret_cast<uint4*>(lower + i * kTileDim * kLowerStride) +
         ((for_u ? kBlocks : 0) + j) * 32 + threadIdx.x % 32;
}

// The sums with each column multiplied by its factor.
__device__ __forceinline__ TileSum ScaleColumns(const TileSum& m, const float* factors) {
  const float2 x = reinterpret_cast<const float2*>(factors)[threadIdx.x % 4];
  const float2 y = reinterpret_cast<const float2*>(factors)[threadIdx.x % 4 + 4];
  return {{m.left[0] * x.x, m.left[1] * x.y, m.left[2] * x.x, m.left[3] * x.y},
          {m.right[0] * y.x, m.right[1] * y.y, m.right[2] * y.x, m.right[3] * y.y}};
}

__device__ __forceinline__ void ClearDiagonal(TileSum& m) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int e = 0; e < 2; ++e) {
    if (lane / 4 == lane % 4 * 2 + e) m.left[e] = m.right[2 + e] = 0.0f;
  }
}

// A warp takes its 16 rows.
template <typename T>
__device__ __forceinline__ void PackInverse(float* lower, const float* for_w, const float* for_u) {
  const int warp = threadIdx.x / 32;
  TileSum m[kBlocks];
#pragma unroll
  for (int j = 0; j < kBlocks; ++j) {
    if (j <= warp) m[j] = LoadSum(lower + warp * kTileDim * kLowerStride + j * kTileDim);
  }
  __syncwarp();
#pragma unroll
  for (int j = 0; j < kBlocks; ++j) {
    if (j > warp) break;
    const int column = j * kTileDim;
    *PackedInverse(lower, warp, j, false) = PackLeft<T>(ScaleColumns(m[j], for_w + column)).r;
    if (j == warp) ClearDiagonal(m[j]);
    *PackedInverse(lower, warp, j, true) = PackTile<T>(ScaleColumns(m[j], for_u + column));
  }
}

// The sums of 32 columns side by side are rows g and g + 8 of eight columns each; lane t of a quad
// has two of each eight. Gathers eight for lane t, the t-th: of row g, then of row g + 8.
template <typename T>
__device__ __forceinline__ void GatherRows(const TileSum (&s)[2], uint4 (&rows)[2]) {
  const int t = threadIdx.x % 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const auto pack = [&](const float* sum) {
      return PackPair<T>(sum[2 * half], sum[2 * half + 1]);
    };
    uint32_t x[4] = {pack(s[0].left), pack(s[0].right), pack(s[1].left), pack(s[1].right)};
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

// With M the inverse, a warp taking 32 columns of K and of V:
//   -w_i = sum_j M_ij * for_w_j * k_j
//   u_iᵀ = for_u_i * v_iᵀ + sum over j < i of v_jᵀ * for_u_j * M_ij
// The first term, most of u where gates decay fast or keys are far apart, is thus rounded only
// once, with u.
template <typename T>
__device__ __forceinline__ void StoreWU(const ChunkSm90Params& p, int64_t record,
                                        const LaneAddress& k, const LaneAddress& v, float* lower,
                                        const float* for_u) {
  constexpr int kMine = kDimTiles / kWarps;
  static_assert(kMine == 2);
  const int lane = threadIdx.x % 32;
  const int first = threadIdx.x / 32 * kMine;
  uint4* w_to = static_cast<uint4*>(p.workspace.w) + record * kRecord;
  Tile* u_to = static_cast<Tile*>(p.workspace.u) + record * kRecord + lane;
#pragma unroll
  for (int i = 0; i < kBlocks; ++i) {
    TileSum w[kMine], u[kMine];
#pragma unroll
    for (int c = 0; c < kMine; ++c) {
      const uint4 x = LoadLeft16Transposed(v, i * kTileDim, first + c).r;
      u[c] = ScaleColumns(UnpackTile<T>({x.x, x.z, x.y, x.w}), for_u + i * kTileDim);
    }
#pragma unroll
    for (int j = 0; j <= i; ++j) {
      const LeftTile m_w = {*PackedInverse(lower, i, j, false)};
      const Tile m_u = *PackedInverse(lower, i, j, true);
#pragma unroll
      for (int c = 0; c < kMine; ++c) {
        MultiplyAdd<T>(w[c], m_w, LoadTile16Transposed(k, j * kTileDim, first + c));
        MultiplyAdd<T>(u[c], LoadLeft16Transposed(v, j * kTileDim, first + c), m_u);
      }
    }
    uint4 rows[2];
    GatherRows<T>(w, rows);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = i * kTileDim + half * 8 + lane / 4;
      w_to[PanelPiece(row, 2 * first + lane % 4)] = rows[half];
    }
#pragma unroll
    for (int c = 0; c < kMine; ++c) {
      u_to[((first + c) * kBlocks + i) * 32] = PackTile<T>(u[c]);
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads, 4)
    PrepareKernel(ChunkSm90Params p, int heads_per_block) {
  extern __shared__ __align__(kRowBytes) unsigned char dynamic[];
  Shared& shared = *reinterpret_cast<Shared*>(dynamic);
  GridDependencyWait();
  GridDependencyLaunch();
  const int group = p.rule.heads.value_heads / p.rule.heads.key_heads;
  const int pieces = (group + heads_per_block - 1) / heads_per_block;
  const int piece = static_cast<int>(blockIdx.y) % pieces;
  const int key_head = static_cast<int>(blockIdx.y) / pieces;
  const Work work = {blockIdx.x, key_head, key_head * group + piece * heads_per_block,
                     min(heads_per_block, group - piece * heads_per_block),
                     TileOf(p.rule.rows, p.chunks, blockIdx.x)};
  if (p.rule.rows.slot(work.tile.row) < 0) return;

  const uint32_t k_rows = SharedAddress(shared.k);
  const uint32_t v_rows = SharedAddress(shared.v);
  const LaneAddress k(k_rows), v(v_rows);
  const T* v_from = static_cast<const T*>(p.rule.v) + work.tile.begin * p.rule.v_stride +
                    int64_t{work.first_head} * kSm90Dim;
  const T* k_from = static_cast<const T*>(p.rule.k) + work.tile.begin * p.rule.k_stride +
                    int64_t{key_head} * kSm90Dim;
  LoadRows<kThreads>(k_rows, k_from, p.rule.k_stride, work.tile.length);
  LoadRows<kThreads>(v_rows, v_from, p.rule.v_stride, work.tile.length);
  // A warp sees to one head's gates; there are no more heads than warps.
  const int mine = threadIdx.x / 32;
  LaneGates gates;
  if (mine < work.heads) gates = LoadGates(p, work, mine);
  CopyAsyncWait();
  __syncthreads();
  NormalizeKeys<T>(p.rule.qk_l2norm, k_rows, shared.norm);
  __syncthreads();
  if (mine < work.heads) StoreGates(p, work, mine, gates, shared);
  if (piece == 0) StoreKeys(p, work, shared);
  TileSum kk[kBlocks];
  MultiplyKeys<T>(k, shared.norm, kk);
  __syncthreads();

  for (int i = 0; i < work.heads; ++i) {
    StoreLower(kk, shared.gamma[i], shared.for_u[i], shared.lower);
    __syncthreads();
    InvertUnitLower(shared.lower, threadIdx.x / 32, [] { __syncthreads(); });
    PackInverse<T>(shared.lower, shared.for_w[i], shared.for_u[i]);
    CopyAsyncWait();
    __syncthreads();
    StoreWU<T>(p, work.record(p, i), k, v, shared.lower, shared.for_u[i]);
    __syncthreads();
    if (i + 1 < work.heads) {
      LoadRows<kThreads>(v_rows, v_from + int64_t{i + 1} * kSm90Dim, p.rule.v_stride,
                         work.tile.length);
    }
  }
}

}  // namespace

cudaError_t ChunkPrepareSm90(const ChunkSm90Params& p, cudaStream_t stream) {
  // A block takes a whole group of value heads, which share k kᵀ, unless that leaves SMs idle.
  constexpr int64_t kEnoughBlocks = 512;
  const int group = p.rule.heads.value_heads / p.rule.heads.key_heads;
  int per_block = std::min(group, kMaxHeads);
  const auto pieces = [&] { return (group + per_block - 1) / per_block; };
  while (per_block > 1 && p.chunks.count * p.rule.heads.key_heads * pieces() < kEnoughBlocks) {
    per_block = (per_block + 1) / 2;
  }
  const dim3 grid(static_cast<unsigned>(p.chunks.count), p.rule.heads.key_heads * pieces());
  const auto kernel =
      p.rule.io == DType::kFp16 ? PrepareKernel<__half> : PrepareKernel<__nv_bfloat16>;
  return LaunchDependent(kernel, grid, kThreads, sizeof(Shared), stream, p, per_block);
}

}  // namespace gdn::cuda
