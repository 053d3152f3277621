// A state in the registers of a warpgroup: 64 of its V rows, a warp 16, and all of K.
#pragma once

#include "kernels/cuda/device/tile.cuh"
#include "kernels/cuda/device/warpgroup.cuh"
#include "kernels/cuda/prefill/chunk_sm90.h"

namespace gdn::cuda {

using State = float[kSm90Dim / 2];           // a thread's part, transposed
using Operand = uint4[kSm90Dim / kTileDim];  // the state as a left operand

template <typename S>
__device__ __forceinline__ float2 LoadPair(const S* p) {
  if constexpr (sizeof(S) == 4) {
    return *reinterpret_cast<const float2*>(p);
  } else {
    return Unpack(*reinterpret_cast<const uint32_t*>(p), S{});
  }
}

template <typename S>
__device__ __forceinline__ void StorePair(S* p, float a, float b) {
  if constexpr (sizeof(S) == 4) {
    *reinterpret_cast<float2*>(p) = {a, b};
  } else {
    *reinterpret_cast<uint32_t*>(p) = PackPair<S>(a, b);
  }
}

// d = S * bᵀ for as many rows of b, which lies in two panels, as d has columns; begins it only.
template <typename T, int N>
__device__ __forceinline__ void MultiplyState(const Operand& s, uint64_t b, float (&d)[N]) {
  constexpr int kPanelTiles = kSm90Dim / kTileDim / 2;
  WarpgroupMma<T, false>(d, s[0], b);
#pragma unroll
  for (int c = 1; c < 2 * kPanelTiles; ++c) {
    WarpgroupMma<T>(d, s[c], b + (c / kPanelTiles) * (8192 / 16) + c % kPanelTiles * 2);
  }
  WarpgroupCommit();
}

}  // namespace gdn::cuda
