// A state between the pool and the warps that advance it in the fused kernel. A lane moves 16 bytes
// at a time, which is more than it has side by side: it exchanges with the lane beside it.
#pragma once

#include "kernels/cuda/prefill/chunk_state.cuh"

namespace gdn::cuda::fused {

// Four elements of a row, side by side.
struct RowPiece {
  float2 low;
  float2 high;
};

template <typename S>
__device__ __forceinline__ RowPiece LoadPiece(const S* p) {
  if constexpr (sizeof(S) == 4) {
    const float4 x = *reinterpret_cast<const float4*>(p);
    return {{x.x, x.y}, {x.z, x.w}};
  } else {
    const uint2 x = *reinterpret_cast<const uint2*>(p);
    return {Unpack(x.x, S{}), Unpack(x.y, S{})};
  }
}

template <typename S>
__device__ __forceinline__ void StorePiece(S* p, const RowPiece& x) {
  if constexpr (sizeof(S) == 4) {
    *reinterpret_cast<float4*>(p) = {x.low.x, x.low.y, x.high.x, x.high.y};
  } else {
    *reinterpret_cast<uint2*>(p) = {PackPair<S>(x.low.x, x.low.y), PackPair<S>(x.high.x, x.high.y)};
  }
}

// A piece of a row in memory for two pairs of sums, and back, by two lanes side by side: of the
// sums' columns 2t.. and 8 + 2t.. of 16, lanes t = 0 and 1 (2 and 3) have those of the pieces
// 0 and 2 (1 and 3).
__device__ __forceinline__ RowPiece Exchanged(const RowPiece& x, bool odd) {
  const float2 send = odd ? x.low : x.high;
  const float2 keep = odd ? x.high : x.low;
  const float2 other = {__shfl_xor_sync(~0u, send.x, 1), __shfl_xor_sync(~0u, send.y, 1)};
  return {odd ? other : keep, odd ? keep : other};
}

// Calls f(element of [V][K], first of a pair of sums) for the thread's pieces, where the second
// pair is that four sums further; a warp has 16 rows.
template <typename F>
__device__ __forceinline__ void ForEachPiece(unsigned thread, F&& f) {
  const unsigned row = thread / 32 * kTileDim + thread % 32 / 4;
  const unsigned at = row * kSm90Dim + thread % 2 * 8 + thread % 4 / 2 * 4;
#pragma unroll
  for (int c = 0; c < kSm90Dim / kTileDim; ++c) {
    f(at + c * kTileDim, 8 * c);
    f(at + c * kTileDim + 8 * kSm90Dim, 8 * c + 2);
  }
}

// The thread's part of the state at `from`, or zeros.
template <typename S>
__device__ __forceinline__ void LoadState(const S* from, unsigned thread, bool any, State& s) {
#pragma unroll
  for (float& e : s) e = 0.0f;
  if (any) {
    ForEachPiece(thread, [&](unsigned at, int e) {
      const RowPiece x = LoadPiece(from + at);
      s[e] = x.low.x;
      s[e + 1] = x.low.y;
      s[e + 4] = x.high.x;
      s[e + 5] = x.high.y;
    });
    ForEachPiece(thread, [&](unsigned, int e) {
      const RowPiece x = Exchanged({{s[e], s[e + 1]}, {s[e + 4], s[e + 5]}}, thread % 2 != 0);
      s[e] = x.low.x;
      s[e + 1] = x.low.y;
      s[e + 4] = x.high.x;
      s[e + 5] = x.high.y;
    });
  }
  WarpgroupTouch(s);
}

template <typename S>
__device__ __forceinline__ void StoreState(const State& s, unsigned thread, S* to) {
  ForEachPiece(thread, [&](unsigned at, int e) {
    StorePiece(to + at, Exchanged({{s[e], s[e + 1]}, {s[e + 4], s[e + 5]}}, thread % 2 != 0));
  });
}

}  // namespace gdn::cuda::fused
