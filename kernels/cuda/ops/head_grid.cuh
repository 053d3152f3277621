// Launches over [tokens, heads]: each head of each token is taken by a group of lanes of one warp.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>

namespace gdn::cuda {

inline constexpr int kHeadPack = 8;        // elements that a lane takes at a time
inline constexpr int kHeadThreads = 256;   // of a block, at most
inline constexpr int kMostDeep = 64;       // threads that a block may have along z
inline constexpr int kMaxPackedDim = 256;  // one pack for each lane of a warp
inline constexpr int kHeadTokens = 2;      // tokens that a group of lanes takes side by side

struct HeadGrid {
  dim3 blocks;
  dim3 threads;  // x: lanes of a head, y: heads, z: tokens
};

// `lanes` is a power of two up to 32, `tokens_of_group` what a group of lanes takes.
inline HeadGrid OverHeads(int64_t tokens, int heads, int lanes, int tokens_of_group) {
  unsigned y = 1;
  while (y < static_cast<unsigned>(heads) && y * lanes < kHeadThreads) y *= 2;
  const dim3 threads(lanes, y, std::min<unsigned>(kHeadThreads / (y * lanes), kMostDeep));
  const int64_t tokens_of_block = int64_t{threads.z} * tokens_of_group;
  const int64_t x = (tokens + tokens_of_block - 1) / tokens_of_block;
  return {dim3(static_cast<unsigned>(x), (heads + y - 1) / y), threads};
}

// Lanes for a head of `dim` elements, at most kMaxPackedDim, of which each takes one pack.
inline int LanesOfPackedHead(int dim) {
  int lanes = 1;
  while (lanes * kHeadPack < dim) lanes *= 2;
  return lanes;
}

// Whether a launch over so many tokens and heads fits the limits of a grid.
inline bool FitsGrid(int64_t tokens, int heads) {
  return tokens < (int64_t{1} << 31) && heads < 65536;
}

// Token i < kHeadTokens of this thread.
__device__ __forceinline__ int64_t HeadToken(int i) {
  return (int64_t{blockIdx.x} * kHeadTokens + i) * blockDim.z + threadIdx.z;
}

// Sum over the lanes of a head. All of them must call.
__device__ __forceinline__ float SumOverHead(float x) {
  for (unsigned step = blockDim.x / 2; step > 0; step /= 2) x += __shfl_xor_sync(~0u, x, step);
  return x;
}

}  // namespace gdn::cuda
