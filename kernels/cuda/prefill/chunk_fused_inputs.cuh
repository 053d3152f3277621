// What a maker of the fused kernel begins with: tokens that are brought, their gates and norms.
#pragma once

#include <type_traits>

#include "kernels/cuda/prefill/chunk_fused.cuh"

namespace gdn::cuda::fused {

constexpr float kLog2E = 1.4426950408889634f;

// ---- what is brought

// Begins to bring in 64 tokens' 128 values at column `column` of a tensor.
template <typename T>
__device__ __forceinline__ void LoadTokens(const void* tensor, int64_t stride, int64_t column,
                                           const Place& at, uint4* to) {
  LoadPanels<kGroupThreads>(SharedAddress(to),
                            static_cast<const T*>(tensor) + at.token * stride + column, stride,
                            at.length);
}

// The same of g and beta; half of the threads take g, half beta.
__device__ __forceinline__ void LoadGates(const ChunkSm90Params& p, const Place& at, Maker& maker) {
  const int token = static_cast<int>(threadIdx.x) % kChunk;
  const bool is_g = threadIdx.x % kGroupThreads < kChunk;
  const float* from = is_g ? p.rule.g : p.rule.beta;
  if (from == nullptr) return;
  const bool valid = token < at.length;
  from += (at.token + (valid ? token : 0)) * p.rule.heads.value_heads + at.head;
  CopyAsyncFloat(SharedAddress((is_g ? maker.next_g : maker.next_beta) + token), from, valid);
}

// The next chunk's keys, queries and gates, and the state where a row begins.
template <typename T>
__device__ __forceinline__ void LoadNext(const ChunkSm90Params& p, const Place& at, int buffer,
                                         Maker& maker) {
  if (at.length > 0) {
    const Heads& heads = p.rule.heads;
    const int64_t column = int64_t{at.head / (heads.value_heads / heads.key_heads)} * kSm90Dim;
    LoadTokens<T>(p.rule.k, p.rule.k_stride, column, at, maker.k[buffer]);
    LoadTokens<T>(p.rule.q, p.rule.q_stride, column, at, maker.q[buffer]);
    LoadGates(p, at, maker);
    if (at.first && at.restore && threadIdx.x % kGroupThreads == 0) {
      const auto size = static_cast<int64_t>(SizeOf(p.rule.ssm.type));
      PrefetchBulk(static_cast<const unsigned char*>(p.rule.ssm.data) + at.state * size,
                   static_cast<unsigned>(kSm90Dim * kSm90Dim * size));
    }
  }
  CopyAsyncCommit();
}

// ---- gates and norms

// gamma and beta, by one warp, a lane two tokens.
__device__ __forceinline__ void StoreSums(const ChunkSm90Params& p, int length, Maker& maker) {
  const int lane = threadIdx.x % 32;
  const float2 g =
      p.rule.g == nullptr ? float2{} : reinterpret_cast<const float2*>(maker.next_g)[lane];
  float2 beta = {2 * lane < length ? 1.0f : 0.0f, 2 * lane + 1 < length ? 1.0f : 0.0f};
  if (p.rule.beta != nullptr) beta = reinterpret_cast<const float2*>(maker.next_beta)[lane];
  float sum = g.x + g.y;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const float below = __shfl_up_sync(~0u, sum, step);
    if (lane >= step) sum += below;
  }
  reinterpret_cast<float2*>(maker.gamma)[lane] = {(sum - g.y) * kLog2E, sum * kLog2E};
  reinterpret_cast<float2*>(maker.beta)[lane] = beta;
}

// What the state's warps multiply tokens by, and d, by one warp.
__device__ __forceinline__ void StoreFactors(Maker& maker) {
  const int lane = threadIdx.x % 32;
  const float2 gamma = reinterpret_cast<const float2*>(maker.gamma)[lane];
  const float2 norm = reinterpret_cast<const float2*>(maker.k_norm)[lane];
  const float2 q_scale = reinterpret_cast<const float2*>(maker.q_scale)[lane];
  const float last = maker.gamma[kChunk - 1];
  const float2 decay = {Exp2(gamma.x), Exp2(gamma.y)};
  ChunkFactors& factors = maker.factors;
  reinterpret_cast<float2*>(maker.decay)[lane] = {norm.x * Exp2(last - gamma.x),
                                                  norm.y * Exp2(last - gamma.y)};
  reinterpret_cast<float2*>(factors.for_y)[lane] = {-decay.x * norm.x, -decay.y * norm.y};
  reinterpret_cast<float2*>(factors.for_o)[lane] = {decay.x * q_scale.x, decay.y * q_scale.y};
  if (lane == 31) factors.decay = decay.y;
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

// The diagonal's tile of q qᵀ, of the warp's 16 rows.
template <typename T>
__device__ __forceinline__ TileSum SquareOfQueries(const uint4* q_rows) {
  TileSum qq;
  const PanelLane rows(SharedAddress(q_rows));
#pragma unroll
  for (int c = 0; c < kDimTiles; ++c) {
    const Tile tile = rows.Load(GroupWarp() * kTileDim, c);
    MultiplyAdd<T>(qq, {{tile.x, tile.z, tile.y, tile.w}}, tile);
  }
  return qq;
}

__device__ __forceinline__ float InverseNorm(const ChunkSm90Params& p, float square) {
  return p.rule.qk_l2norm ? InverseRoot(square + kL2NormEps) : 1.0f;
}

// scale * nq, from the products of the warp's queries with themselves.
__device__ __forceinline__ void StoreScales(const ChunkSm90Params& p, const TileSum& qq,
                                            Maker& maker) {
  float* to = maker.q_scale + GroupWarp() * kTileDim;
  OnDiagonal([&](int row, int e) {
    to[row] = p.rule.scale * InverseNorm(p, qq.left[e]);
    to[row + 8] = p.rule.scale * InverseNorm(p, qq.right[2 + e]);
  });
}

// n, from the products of the warp's keys with themselves. Keys of fp16 have theirs already.
template <typename T>
__device__ __forceinline__ void StoreNorms(const ChunkSm90Params& p, const TileSum& kk,
                                           Maker& maker) {
  constexpr bool kHave = std::is_same_v<T, __half>;
  float* to = maker.k_norm + GroupWarp() * kTileDim;
  OnDiagonal([&](int row, int e) {
    to[row] = kHave ? 1.0f : InverseNorm(p, kk.left[e]);
    to[row + 8] = kHave ? 1.0f : InverseNorm(p, kk.right[2 + e]);
  });
}

}  // namespace gdn::cuda::fused
