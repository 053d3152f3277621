// What the copy engine brings and takes away in the fused kernel, whole chunks, by a thread each.
#pragma once

#include "kernels/cuda/prefill/chunk_fused.cuh"

namespace gdn::cuda::fused {

__device__ __forceinline__ int PanelColumn(int head, int panel) {
  return head * kSm90Dim + panel * (kSm90Dim / 2);
}

// A chunk's keys or queries of a head, counted by `loaded`.
__device__ __forceinline__ void LoadRecord(const TensorMap& tensor, int head, const Place& at,
                                           const uint4* to, uint64_t& loaded) {
  if (at.length < kChunk) return;
  const uint32_t barrier = SharedAddress(&loaded);
  const auto row = static_cast<int>(at.token);
  BarrierArriveExpect(barrier, 2 * kPanelBytes);
#pragma unroll
  for (int panel = 0; panel < 2; ++panel) {
    CopyPanel(SharedAddress(to + panel * kPanelPieces), &tensor, PanelColumn(head, panel), row,
              barrier);
  }
}

// Half of V of a chunk's values, into L2.
__device__ __forceinline__ void PrefetchValues(const Tensors& tensors, const Place& at, int half) {
  if (at.length < kChunk) return;
  PrefetchPanel(&tensors.v, PanelColumn(at.head, half), static_cast<int>(at.token));
}

// Half of V of a chunk's values, counted by `made`.
__device__ __forceinline__ void LoadValues(const Tensors& tensors, const Place& at, int half,
                                           const uint4* v, uint64_t& made) {
  if (at.length < kChunk) return;
  const uint32_t barrier = SharedAddress(&made);
  BarrierExpect(barrier, kPanelBytes);
  CopyPanel(SharedAddress(v + half * kPanelPieces), &tensors.v, PanelColumn(at.head, half),
            static_cast<int>(at.token), barrier);
}

// Half of V of a chunk's output.
__device__ __forceinline__ void StoreOutput(const Tensors& tensors, const Place& at, int half,
                                            const uint4* from) {
  if (at.length < kChunk) return;
  StorePanel(&tensors.o, PanelColumn(at.head, half), static_cast<int>(at.token),
             SharedAddress(from + half * kPanelPieces));
  StoreBulkCommit();
}

}  // namespace gdn::cuda::fused
