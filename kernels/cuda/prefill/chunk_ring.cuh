// Where the records of a chunk and head lie. Where chunks are prepared beside the chains, one of
// which takes all of a head's, they pass through a ring that stays in L2: the places of a head's
// first chunks are used again once the chain has done with what is there. Prepare waits for that a
// little while, so that it keeps pace with the chain, but not for ever: what finds no place in the
// ring goes to its own, and nothing depends on the chain being there.
#pragma once

#include "kernels/cuda/device/ptx.cuh"
#include "kernels/cuda/prefill/chunk_sm90.h"

namespace gdn::cuda {

// What a warp of prepare adds to a record's mark once its part is there: so the sum of all warps
// tells where it is.
constexpr unsigned kInOwnPlace = 1;
constexpr unsigned kInRing = kPrepareWarps + 1;

__device__ __forceinline__ bool IsReady(unsigned mark) {
  return mark == kPrepareWarps * kInOwnPlace || mark == kPrepareWarps * kInRing;
}

__device__ __forceinline__ int64_t RecordOf(const ChunkSm90Params& p, int64_t chunk, int head,
                                            bool in_ring) {
  return (in_ring ? chunk % kRingChunks : chunk) * p.rule.heads.value_heads + head;
}

// Before any block of the chain can run: it has done with none of the chunks.
__device__ __forceinline__ void ClearTaken(const ChunkSm90Params& p) {
  if (!p.plan.ring) return;
  for (int head = threadIdx.x; head < p.rule.heads.value_heads; head += blockDim.x) {
    p.workspace.taken[head] = 0;
  }
}

// The chain has done with the head's chunks up to this one; by one thread, that has seen all copies
// of them arrive. It releases nothing: that would have it wait for the copies that it has begun
// since.
__device__ __forceinline__ void Take(const ChunkSm90Params& p, int64_t chunk, int head) {
  if (p.plan.ring) MaxRelaxed(p.workspace.taken + head, static_cast<unsigned>(chunk) + 1);
}

// Whether the chunk's place in the ring is free; by one thread.
__device__ __forceinline__ bool FindRingFree(const ChunkSm90Params& p, int64_t chunk, int head) {
  constexpr int kLooks = 16;  // of half a microsecond or more
  if (!p.plan.ring || chunk < kRingChunks) return p.plan.ring;
  bool free = false;
  for (int i = 0; i < kLooks && !free; ++i) {
    free = LoadAcquire(p.workspace.taken + head) > chunk - kRingChunks;
  }
  return free;
}

}  // namespace gdn::cuda
