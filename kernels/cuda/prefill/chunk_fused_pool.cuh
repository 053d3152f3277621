// A state between the pool and the warps that advance it in the fused kernel. In pairs, as a lane
// has them: code that is run once a head is not in the instruction cache, so little of it is
// faster than wider accesses.
#pragma once

#include "kernels/cuda/prefill/chunk_state.cuh"

namespace gdn::cuda::fused {

// Calls f(how many elements behind the thread's first, first of a pair of sums) for its pairs.
template <typename F>
__device__ __forceinline__ void ForEachPair(F&& f) {
#pragma unroll
  for (int row = 0; row < kTileDim; row += 8) {
#pragma unroll
    for (int c = 0; c < kSm90Dim / 8; ++c) f(row * kSm90Dim + c * 8, 4 * c + row / 4);
  }
}

// The thread's first element of [V][K]; a warp has 16 rows.
__device__ __forceinline__ int FirstElement() {
  const int lane = static_cast<int>(threadIdx.x % 32);
  return (static_cast<int>(threadIdx.x) / 32 * kTileDim + lane / 4) * kSm90Dim + lane % 4 * 2;
}

// The thread's part of the state at `from`, or zeros.
template <typename S>
__device__ __forceinline__ void LoadState(const S* from, bool any, State& s) {
#pragma unroll
  for (float& e : s) e = 0.0f;
  if (any) {
    from += FirstElement();
    ForEachPair([&](int at, int e) {
      const float2 x = LoadPair(from + at);
      s[e] = x.x;
      s[e + 1] = x.y;
    });
  }
  WarpgroupTouch(s);
}

template <typename S>
__device__ __forceinline__ void StoreState(const State& s, S* to) {
  to += FirstElement();
  ForEachPair([&](int at, int e) { StorePair(to + at, s[e], s[e + 1]); });
}

}  // namespace gdn::cuda::fused
