#include <algorithm>

#include "kernels/cuda/chunk_sm90.h"
#include "kernels/cuda/chunk_tile.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/tile_rows.cuh"
#include "kernels/cuda/unit_lower.cuh"

namespace gdn::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * 32;
constexpr int kMaxHeads = 8;  // value heads that a block takes, one after another
constexpr int kBlocks = kChunk / kTileDim;
constexpr int kDimTiles = kSm90Dim / kTileDim;

struct Shared {
  unsigned char k[kChunk * kRowBytes];
  unsigned char v[kChunk * kRowBytes];
  float lower[kChunk * kLowerStride];  // A, then its inverse
  float gamma[kMaxHeads][kChunk];
  float beta[kMaxHeads][kChunk];
  float for_w[kMaxHeads][kChunk];  // -beta * exp(gamma)
};

// Where a block works: chunk, key head and, of its group, value heads first_head..first_head+heads.
struct Work {
  int64_t chunk;
  int key_head;
  int first_head;
  int heads;
  ChunkTile tile;
};

// gamma, beta and the gates' record of one head, by one warp; a lane takes tokens 2l and 2l + 1.
__device__ void PrepareGates(const ChunkSm90Params& p, const Work& work, int index,
                             Shared& shared) {
  const int lane = threadIdx.x % 32;
  const int head = work.first_head + index;
  const int64_t heads = p.rule.heads.value_heads;
  float g[2], beta[2];
#pragma unroll
  for (int e = 0; e < 2; ++e) {
    const int i = 2 * lane + e;
    const int64_t at = (work.tile.begin + i) * heads + head;
    const bool valid = i < work.tile.length;
    g[e] = valid && p.rule.g != nullptr ? p.rule.g[at] : 0.0f;
    beta[e] = valid ? (p.rule.beta != nullptr ? p.rule.beta[at] : 1.0f) : 0.0f;
  }
  float sum = g[0] + g[1];
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const float below = __shfl_up_sync(~0u, sum, step);
    if (lane >= step) sum += below;
  }
  const float last = __shfl_sync(~0u, sum, 31);
  const float2 gamma = {sum - g[1], sum};
  const float2 decay = {expf(last - gamma.x), expf(last - gamma.y)};
  ChunkGates& gates = p.workspace.gates[work.chunk * heads + head];
  reinterpret_cast<float2*>(gates.gamma)[lane] = gamma;
  reinterpret_cast<float2*>(gates.decay)[lane] = decay;
  reinterpret_cast<float2*>(shared.gamma[index])[lane] = gamma;
  reinterpret_cast<float2*>(shared.beta[index])[lane] = {beta[0], beta[1]};
  reinterpret_cast<float2*>(shared.for_w[index])[lane] = {-beta[0] * expf(gamma.x),
                                                          -beta[1] * expf(gamma.y)};
}

// Writes kᵀ in tiles [token block][k block], a warp a token block.
__device__ void StoreTransposedKeys(const ChunkSm90Params& p, const Work& work, uint32_t k) {
  const int warp = threadIdx.x / 32;
  Tile* to =
      static_cast<Tile*>(p.workspace.kt) +
      ((work.chunk * p.rule.heads.key_heads + work.key_head) * kBlocks + warp) * kDimTiles * 32 +
      threadIdx.x % 32;
#pragma unroll
  for (int c = 0; c < kDimTiles; ++c) {
    to[c * 32] = LoadTile16Transposed(k, warp * kTileDim, c * kTileDim);
  }
}

// k kᵀ: rows 16 * warp.. of it, columns up to the diagonal's tile.
template <typename T>
__device__ void MultiplyKeys(uint32_t k, TileSum (&kk)[kBlocks]) {
  const int warp = threadIdx.x / 32;
#pragma unroll
  for (int c = 0; c < kDimTiles; ++c) {
    const Tile a = LoadTile16(k, warp * kTileDim, c * kTileDim);
#pragma unroll
    for (int j = 0; j < kBlocks; ++j) {
      if (j <= warp) MultiplyAdd<T>(kk[j], a, LoadTile16(k, j * kTileDim, c * kTileDim));
    }
  }
}

// A_ij = beta_i * (k_i · k_j) * exp(gamma_i - gamma_j) for i > j, else 0
__device__ void StoreLower(const TileSum (&kk)[kBlocks], const float* gamma, const float* beta,
                           float* lower) {
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
#pragma unroll
  for (int j0 = 0; j0 < kBlocks; ++j0) {
    if (j0 > warp) break;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int i = warp * kTileDim + lane / 4 + half * 8;
#pragma unroll
      for (int side = 0; side < 2; ++side) {
        const int j = j0 * kTileDim + side * 8 + lane % 4 * 2;
        const float* s = (side == 0 ? kk[j0].left : kk[j0].right) + half * 2;
        float2 a;
        a.x = j < i ? beta[i] * s[0] * __expf(gamma[i] - gamma[j]) : 0.0f;
        a.y = j + 1 < i ? beta[i] * s[1] * __expf(gamma[i] - gamma[j + 1]) : 0.0f;
        *reinterpret_cast<float2*>(lower + i * kLowerStride + j) = a;
      }
    }
  }
}

// The tile with each column j multiplied by its factor; `factors` points at the first.
template <typename T>
__device__ __forceinline__ Tile PackScaled(const TileSum& m, const float* factors) {
  const int at = threadIdx.x % 4;
  const float2 x = reinterpret_cast<const float2*>(factors)[at];
  const float2 y = reinterpret_cast<const float2*>(factors)[at + 4];
  return {PackPair<T>(m.left[0] * x.x, m.left[1] * x.y),
          PackPair<T>(m.right[0] * y.x, m.right[1] * y.y),
          PackPair<T>(m.left[2] * x.x, m.left[3] * x.y),
          PackPair<T>(m.right[2] * y.x, m.right[3] * y.y)};
}

// With M the inverse, a warp taking 32 columns of K and of V:
//   -w_i = sum_j M_ij * (-beta_j * exp(gamma_j)) * k_j;  u_iᵀ = sum_j v_jᵀ * beta_j * M_ij
template <typename T>
__device__ void StoreWU(const ChunkSm90Params& p, const Work& work, int index, uint32_t k,
                        uint32_t v, const Shared& shared) {
  constexpr int kMine = kDimTiles / kWarps;
  const int lane = threadIdx.x % 32;
  const int first = threadIdx.x / 32 * kMine;
  const int64_t record = work.chunk * p.rule.heads.value_heads + work.first_head + index;
  Tile* w_to = static_cast<Tile*>(p.workspace.w) + record * kBlocks * kDimTiles * 32 + lane;
  Tile* u_to = static_cast<Tile*>(p.workspace.u) + record * kBlocks * kDimTiles * 32 + lane;
#pragma unroll
  for (int i = 0; i < kBlocks; ++i) {
    TileSum w[kMine], u[kMine];
#pragma unroll
    for (int j = 0; j <= i; ++j) {
      const TileSum m = LoadSum(shared.lower + i * kTileDim * kLowerStride + j * kTileDim);
      const Tile mw = PackScaled<T>(m, shared.for_w[index] + j * kTileDim);
      const Tile mu = PackScaled<T>(m, shared.beta[index] + j * kTileDim);
#pragma unroll
      for (int c = 0; c < kMine; ++c) {
        const int column = (first + c) * kTileDim;
        MultiplyAdd<T>(w[c], mw, LoadTile16Transposed(k, j * kTileDim, column));
        MultiplyAdd<T>(u[c], LoadTile16Transposed(v, j * kTileDim, column), mu);
      }
    }
#pragma unroll
    for (int c = 0; c < kMine; ++c) {
      w_to[(i * kDimTiles + first + c) * 32] = PackTile<T>(w[c]);
      u_to[((first + c) * kBlocks + i) * 32] = PackTile<T>(u[c]);
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads, 4)
    PrepareKernel(ChunkSm90Params p, int heads_per_block) {
  extern __shared__ __align__(128) unsigned char dynamic[];
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

  const uint32_t k = SharedAddress(shared.k);
  const uint32_t v = SharedAddress(shared.v);
  const T* v_from = static_cast<const T*>(p.rule.v) + work.tile.begin * p.rule.v_stride +
                    int64_t{work.first_head} * kSm90Dim;
  LoadRows<kThreads>(k,
                     static_cast<const T*>(p.rule.k) + work.tile.begin * p.rule.k_stride +
                         int64_t{key_head} * kSm90Dim,
                     p.rule.k_stride, work.tile.length);
  LoadRows<kThreads>(v, v_from, p.rule.v_stride, work.tile.length);
  for (int i = threadIdx.x / 32; i < work.heads; i += kWarps) PrepareGates(p, work, i, shared);
  CopyAsyncWait();
  __syncthreads();
  if (p.rule.qk_l2norm) {
    NormalizeRows<T>(k, threadIdx.x / 32 * kTileDim);
    __syncthreads();
  }
  if (piece == 0) StoreTransposedKeys(p, work, k);
  TileSum kk[kBlocks];
  MultiplyKeys<T>(k, kk);

  for (int i = 0; i < work.heads; ++i) {
    StoreLower(kk, shared.gamma[i], shared.beta[i], shared.lower);
    __syncthreads();
    InvertUnitLower(shared.lower);
    CopyAsyncWait();
    __syncthreads();
    StoreWU<T>(p, work, i, k, v, shared);
    __syncthreads();
    if (i + 1 < work.heads) {
      LoadRows<kThreads>(v, v_from + int64_t{i + 1} * kSm90Dim, p.rule.v_stride, work.tile.length);
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
  return p.rule.io == DType::kFp16 ? LaunchDependent(PrepareKernel<__half>, grid, kThreads,
                                                     sizeof(Shared), stream, p, per_block)
                                   : LaunchDependent(PrepareKernel<__nv_bfloat16>, grid, kThreads,
                                                     sizeof(Shared), stream, p, per_block);
}

}  // namespace gdn::cuda
