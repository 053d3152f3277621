// What a maker of the fused kernel begins with: tokens that are brought, their gates and norms.
#pragma once

#include <type_traits>

#include "kernels/cuda/prefill/chunk_decay.cuh"
#include "kernels/cuda/prefill/chunk_fused.cuh"

namespace gdn::cuda::fused {

// The warp of a maker that brings whole chunks.
constexpr int kLoadWarp = 2;

// ---- what is brought

// Begins to bring in the 128 values at column `column` of a tensor of less than 64 tokens, and
// zeros for the others. As LoadPanels, in less code: what is seldom run takes no place in the
// instruction cache from the rest.
template <typename T>
__device__ __forceinline__ void LoadTokens(const void* tensor, int64_t stride, int64_t column,
                                           const Place& at, uint4* to) {
  constexpr int kPieces = kSm90Dim * sizeof(T) / sizeof(uint4);
  const int piece = static_cast<int>(threadIdx.x) % kPieces;
  const T* from = static_cast<const T*>(tensor) + at.token * stride + column + piece * 8;
#pragma unroll 1
  for (int row = static_cast<int>(threadIdx.x) % kGroupThreads / kPieces; row < kChunk;
       row += kGroupThreads / kPieces) {
    const bool valid = row < at.length;
    CopyAsync16(SharedAddress(to + PanelPiece(row, piece)), valid ? from + row * stride : from,
                valid);
  }
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

// The thread of a maker that has the copy engine bring whole chunks.
__device__ __forceinline__ bool IsLoader() { return threadIdx.x % kGroupThreads == kLoadWarp * 32; }

// Has it bring a whole chunk's 64 x 128 values of a head.
__device__ __forceinline__ void LoadChunk(const TensorMap& tensor, int head, const Place& at,
                                          const uint4* to, uint32_t barrier) {
#pragma unroll
  for (int panel = 0; panel < 2; ++panel) {
    CopyPanel(SharedAddress(to + panel * kPanelPieces), &tensor,
              head * kSm90Dim + panel * (kSm90Dim / 2), static_cast<int>(at.token), barrier);
  }
}

// The next chunk's keys and queries, counted by `loaded`, and its gates. The values will follow:
// into L2.
template <typename T>
__device__ __forceinline__ void LoadNext(const ChunkSm90Params& p, const Tensors& tensors,
                                         const Place& at, int buffer, uint32_t loaded,
                                         Maker& maker) {
  if (at.length > 0) LoadGates(p, at, maker);
  if (at.length == kChunk) {
    if (IsLoader()) {
      BarrierArriveExpect(loaded, 4 * kPanelBytes);
      LoadChunk(tensors.k, at.key_head, at, maker.k[buffer], loaded);
      LoadChunk(tensors.q, at.key_head, at, maker.q[buffer], loaded);
#pragma unroll
      for (int panel = 0; panel < 2; ++panel) {
        PrefetchPanel(&tensors.v, at.head * kSm90Dim + panel * (kSm90Dim / 2),
                      static_cast<int>(at.token));
      }
    }
  } else if (at.length > 0) {
    const int64_t column = int64_t{at.key_head} * kSm90Dim;
    LoadTokens<T>(p.rule.k, p.rule.k_stride, column, at, maker.k[buffer]);
    LoadTokens<T>(p.rule.q, p.rule.q_stride, column, at, maker.q[buffer]);
    if (IsLoader()) BarrierArrive(loaded);
  }
  CopyAsyncCommit();
}

// The chunk's values, counted by `made`.
template <typename T>
__device__ __forceinline__ void LoadValues(const ChunkSm90Params& p, const Tensors& tensors,
                                           const Place& at, uint32_t made, Maker& maker) {
  if (at.length < kChunk) {
    LoadTokens<T>(p.rule.v, p.rule.v_stride, int64_t{at.head} * kSm90Dim, at, maker.v);
  } else if (IsLoader()) {
    AsyncProxyFence();  // the last output has left the place
    BarrierExpect(made, 2 * kPanelBytes);
    LoadChunk(tensors.v, at.head, at, maker.v, made);
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
  SetFactor(factors.for_y, token, -begin * n);
  SetFactor(factors.beta, token, maker.beta[token]);
  SetFactor(factors.for_s, token, Exp2(maker.gamma[kChunk - 1] - gamma) * n);
  SetFactor(factors.for_o, token, begin * maker.q_scale[token]);
  if (token == kChunk - 1) factors.decay = begin;
}

}  // namespace gdn::cuda::fused
