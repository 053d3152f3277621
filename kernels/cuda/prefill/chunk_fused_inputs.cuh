// What a maker of the fused kernel begins with: tokens that are brought, their gates and norms.
#pragma once

#include <type_traits>

#include "kernels/cuda/prefill/chunk_decay.cuh"
#include "kernels/cuda/prefill/chunk_fused.cuh"

namespace gdn::cuda::fused {

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
  float* to = (is_g ? maker.next_g : maker.next_beta) + token;
  const bool valid = token < at.length;
  if (from == nullptr) {
    *to = valid && !is_g ? 1.0f : 0.0f;
    return;
  }
  from += (at.token + (valid ? token : 0)) * p.rule.heads.value_heads + at.head;
  CopyAsyncFloat(SharedAddress(to), from, valid);
}

// The next chunk's keys, queries and gates. The values will follow: into L2.
template <typename T>
__device__ __forceinline__ void LoadNext(const ChunkSm90Params& p, const Place& at, int buffer,
                                         Maker& maker) {
  if (at.length > 0) {
    const int64_t column = int64_t{at.key_head} * kSm90Dim;
    LoadTokens<T>(p.rule.k, p.rule.k_stride, column, at, maker.k[buffer]);
    LoadTokens<T>(p.rule.q, p.rule.q_stride, column, at, maker.q[buffer]);
    LoadGates(p, at, maker);
    const int thread = static_cast<int>(threadIdx.x) % kGroupThreads;
    if (thread / 2 < at.length) {
      Prefetch(static_cast<const T*>(p.rule.v) + (at.token + thread / 2) * p.rule.v_stride +
               int64_t{at.head} * kSm90Dim + thread % 2 * (kSm90Dim / 2));
    }
  }
  CopyAsyncCommit();
}

// ---- gates and norms

// The number of the lane's token, in either half of a warp.
__device__ __forceinline__ int OwnToken() {
  return GroupWarp() * kTileDim + static_cast<int>(threadIdx.x) % kTileDim;
}

// What this maker multiplies by. Keys of fp16 have their norms already.
template <typename T>
__device__ __forceinline__ void StoreScales(const ChunkSm90Params& p, float column_decay,
                                            const TileSum& kk, const TileSum& qq, Maker& maker) {
  const int token = OwnToken();
  const bool l2norm = p.rule.qk_l2norm;
  const float n = std::is_same_v<T, __half> ? 1.0f : InverseNorm(l2norm, SquareOf(kk));
  maker.k_norm[token] = n;
  maker.column[token] = n * column_decay;
  maker.q_scale[token] = p.rule.scale * InverseNorm(l2norm, SquareOf(qq));
  maker.beta[token] = maker.next_beta[token];
}

// What the state's warps multiply by.
__device__ __forceinline__ void StoreFactors(Maker& maker) {
  const int token = OwnToken();
  const float gamma = maker.gamma[token];
  const float begin = Exp2(gamma);
  const float n = maker.k_norm[token];
  Factors& factors = maker.factors;
  factors.for_y[token] = -begin * n;
  factors.beta[token] = maker.beta[token];
  factors.for_s[token] = Exp2(maker.gamma[kChunk - 1] - gamma) * n;
  factors.for_o[token] = begin * maker.q_scale[token];
  if (token == kChunk - 1) factors.decay = begin;
}

}  // namespace gdn::cuda::fused
