// The warp that takes the chain's output away (chunk_chain_shared.cuh).
#pragma once

#include "kernels/cuda/prefill/chunk_chain_shared.cuh"

namespace gdn::cuda::chain {

template <typename Out>
__device__ __forceinline__ void StoreTokens(Out* to, int64_t stride, int length,
                                            const unsigned char* from) {
  constexpr int kPieces = kRows * sizeof(Out) / 16;
  constexpr int kStep = 32 / kPieces;
  const int lane = threadIdx.x % 32;
  const int first = lane / kPieces;
  from += first * kOutStride<Out> + lane % kPieces * 16;
  Out* next = to + first * stride + lane % kPieces * (16 / sizeof(Out));
#pragma unroll 16
  for (int i = 0; i < kChunk; i += kStep) {
    const uint4 x = *reinterpret_cast<const uint4*>(from + i * kOutStride<Out>);
    if (first + i < length) *reinterpret_cast<uint4*>(next) = x;
    next += kStep * stride;
  }
}

// PAD rows: o = 0
template <typename Out>
__device__ void StoreZeros(Out* to, int64_t stride, int64_t tokens) {
  constexpr int kWidth = kRows * sizeof(Out) / sizeof(uint4);
  for (int64_t e = threadIdx.x % 32; e < tokens * kWidth; e += 32) {
    reinterpret_cast<uint4*>(to + e / kWidth * stride)[e % kWidth] = {};
  }
}

template <typename Form>
__device__ void Store(const ChunkSm90Params& p, const Range& range, Shared<Form>& shared) {
  using Out = typename Form::Out;
  Turn<kOutBuffers<Out>> turn;
  const int64_t stride = p.rule.o_stride;
  ForEachWork(p, range, [&](const Work& work) {
    Out* o = static_cast<Out*>(p.rule.o) + work.first_token * stride +
             int64_t{work.head} * kSm90Dim + static_cast<int>(ClusterRank()) * kRows;
    if (work.pad) {
      StoreZeros(o, stride, work.tokens);
      return;
    }
#pragma unroll 1
    for (int n = 0; n < work.chunks; ++n, turn.Next()) {
      BarrierWait(SharedAddress(&shared.barriers.o_full[turn.at]), turn.parity);
      StoreTokens(o + int64_t{n} * kChunk * stride, stride, work.length(n),
                  shared.o + turn.at * kChunk * kOutStride<Out>);
      BarrierArrive(SharedAddress(&shared.barriers.o_empty[turn.at]));
    }
  });
}

}  // namespace gdn::cuda::chain
