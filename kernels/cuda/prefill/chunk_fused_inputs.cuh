// What a maker of the fused kernel begins with: tokens that are brought, their gates and norms.
#pragma once

#include <type_traits>

#include "kernels/cuda/prefill/chunk_decay.cuh"
#include "kernels/cuda/prefill/chunk_fused.cuh"

namespace gdn::cuda::fused {

// The threads of this maker.
__device__ __forceinline__ void MakerSync() {
  NamedBarrier(1 + static_cast<int>(threadIdx.x) / kGroupThreads, kGroupThreads);
}

// ---- what is brought

// Begins to bring in the 128 values at column `column` of a tensor of less than 64 tokens, and
// zeros for the others. As LoadPanels, in less code: what is seldom run takes no place in the
// instruction cache from the rest.
template <typename T>
__device__ __forceinline__ void LoadTokens(const void* tensor, int64_t stride, int64_t column,
                                           const Place& at, uint4* to) {
  constexpr int kPieces = kSm90Dim * sizeof(T) / sizeof(uint4);
  const int piece = static_cast<int>(threadIdx.x % kPieces);
  const T* from = static_cast<const T*>(tensor) + at.token * stride + column + piece * 8;
#pragma unroll 1
  for (int row = static_cast<int>(threadIdx.x % kGroupThreads / kPieces); row < kChunk;
       row += kGroupThreads / kPieces) {
    const bool valid = row < at.length;
    CopyAsync16(SharedAddress(to + PanelPiece(row, piece)), valid ? from + row * stride : from,
                valid);
  }
}

// The same of g and beta; half of the threads take g, half beta.
__device__ __forceinline__ void LoadGates(const ChunkSm90Params& p, const Place& at, Maker& maker) {
  const int token = static_cast<int>(threadIdx.x % kChunk);
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

// Of the next chunk: its gates, and keys and queries unless the copy engine brings them.
template <typename T>
__device__ __forceinline__ void LoadNext(const ChunkSm90Params& p, const Place& place, uint4* k,
                                         uint4* q, uint64_t& loaded, Maker& maker) {
  const Place at = place;
  if (at.length == 0) return;
  LoadGates(p, at, maker);
  if (at.length == kChunk) return;
  const int64_t column = int64_t{at.key_head} * kSm90Dim;
  LoadTokens<T>(p.rule.k, p.rule.k_stride, column, at, k);
  LoadTokens<T>(p.rule.q, p.rule.q_stride, column, at, q);
  if (threadIdx.x % kGroupThreads < kRecords) BarrierArrive(SharedAddress(&loaded));
}

// They are there for all of the maker.
__device__ __forceinline__ void EndLoadNext(const Place& at) {
  CopyAsyncWait();
  if (at.length < kChunk) AsyncProxyFence();
  MakerSync();
}

// Values that the copy engine does not bring.
template <typename T>
__device__ __forceinline__ void LoadFewValues(const ChunkSm90Params& p, const Place& place,
                                              Maker& maker) {
  const Place at = place;
  if (at.length == kChunk) return;
  LoadTokens<T>(p.rule.v, p.rule.v_stride, int64_t{at.head} * kSm90Dim, at, maker.v);
  CopyAsyncWait();
}

// ---- gates and norms

// The number of the lane's token, in either half of a warp.
__device__ __forceinline__ int OwnToken() {
  return static_cast<int>(threadIdx.x % kGroupThreads / 32 * kTileDim + threadIdx.x % kTileDim);
}

// What this maker multiplies by. Keys of fp16 have their norms already.
template <typename T>
__device__ __forceinline__ void StoreScales(const ChunkSm90Params& p, float column_decay,
                                            const TileSum& kk, float qq, Maker& maker) {
  const int token = OwnToken();
  const float n = std::is_same_v<T, __half> ? 1.0f : InverseNorm(SquareOf(kk));
  maker.k_norm[token] = n;
  maker.column[token] = n * column_decay;
  maker.q_scale[token] = p.rule.scale * InverseNorm(qq);
  maker.beta[token] = maker.next_beta[token];
}

// What the state's warps multiply the lane's token by; half of a warp has the one two factors, half
// the other two.
struct OwnFactors {
  float first;   // for_y or for_o
  float second;  // beta or for_s
  float begin;
};

__device__ __forceinline__ bool HasFirstHalf() { return threadIdx.x % 32 < kTileDim; }

__device__ __forceinline__ OwnFactors MakeFactors(const Maker& maker) {
  const int token = OwnToken();
  const float gamma = maker.gamma[token];
  const float n = maker.k_norm[token];
  const float begin = Exp2(gamma);
  const bool half = HasFirstHalf();
  return {.first = begin * (half ? -n : maker.q_scale[token]),
          .second = half ? maker.beta[token] : Exp2(maker.gamma[kChunk - 1] - gamma) * n,
          .begin = begin};
}

__device__ __forceinline__ void StoreFactors(const OwnFactors& own, Factors& factors) {
  const int token = static_cast<int>(NotBefore(OwnToken()));
  TokenFactors* two = factors.of + (HasFirstHalf() ? kForY : kForO);
  SetFactor(two[0], token, own.first);
  SetFactor(two[1], token, own.second);
  if (token == kChunk - 1) factors.decay = own.begin;
}

}  // namespace gdn::cuda::fused
