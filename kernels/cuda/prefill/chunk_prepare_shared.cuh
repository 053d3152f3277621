// What a group of prepare's warps has in shared memory, and how its results leave that.
#pragma once

#include "kernels/cuda/device/panel.cuh"
#include "kernels/cuda/prefill/chunk_sm90.h"
#include "kernels/cuda/prefill/unit_lower.cuh"

namespace gdn::cuda::prepare {

constexpr int kWarps = kPrepareWarps;  // of a group, which takes an item by itself
constexpr int kThreads = kWarps * 32;
constexpr int kGroups = 3;  // that an SM holds, to hide one another's latencies
constexpr int kMaxHeads = kMaxItemHeads;
constexpr int kBlocks = kChunk / kTileDim;
constexpr int kDimTiles = kSm90Dim / kTileDim;
constexpr int kRecord = 2 * kPanelPieces;            // 16-byte pieces of 64 x 128 elements
constexpr int kWarpPieces = kPanelPieces / kBlocks;  // of a warp's 16 rows of a panel

struct Gates {
  float g[kMaxHeads][kChunk];
  float beta[kMaxHeads][kChunk];  // 0 beyond the row's end
};

struct alignas(1024) Shared {
  uint4 k[2][kRecord];  // of an item and of the next
  union {
    uint4 q[kRecord];  // until it has been multiplied,
    struct {
      uint4 t[kPanelPieces];  // then T of a head without its diagonal, columns times beta,
      uint4 out[kPanelPieces];
    } after;
  };
  union {
    LowerTiles lower[kMaxHeads];  // A of each head, until T of the first is there
    uint4 out[kPanelPieces];      // of panels on their way out; a warp's rows are its own
  };
  Gates gates[2];                   // of an item and of the next
  float gamma[kMaxHeads][kChunk];   // / ln 2
  float column[kMaxHeads][kChunk];  // n_j * exp(gamma_e - gamma_j), e the last of j's 16 tokens
  float decay[kMaxHeads][kChunk];   // n_i * d_i
  float k_norm[kChunk];             // n
  float q_scale[kChunk];            // scale * nq
  float k_scale[kChunk];            // of fp16: what k has been multiplied by
  bool in_ring[kMaxHeads];          // where X and P of each head go
};
static_assert(sizeof(LowerTiles) >= kPanelBytes);  // `out` leaves A of the second head alone

__device__ __forceinline__ int GroupWarp() {
  return __shfl_sync(~0u, static_cast<int>(threadIdx.x % kThreads / 32), 0);  // uniform
}
__device__ __forceinline__ void GroupSync() {
  NamedBarrier(1 + static_cast<int>(threadIdx.x) / kThreads, kThreads);
}

// Takes a warp's 16 rows of panels out of shared memory, one panel while the next is written.
class Outbox {
 public:
  // For `panels` panels, the last of which will not lie where q does.
  __device__ Outbox(Shared& shared, int warp, int panels)
      : first_(warp * kWarpPieces),
        now_(SharedAddress(panels % 2 != 0 ? shared.out : shared.after.out) + first_ * kPiece),
        then_(SharedAddress(panels % 2 != 0 ? shared.after.out : shared.out) + first_ * kPiece) {}

  // Where the warp's next 16 rows go.
  __device__ uint32_t Next() {
    if (threadIdx.x % 32 == 0) StoreBulkWaitRead<1>();
    __syncwarp();
    return now_;
  }

  // They are there: sends them to their place in a panel.
  __device__ void Send(uint4* panel) {
    AsyncProxyFence();
    __syncwarp();
    if (threadIdx.x % 32 == 0) {
      StoreBulk(panel + first_, now_, kWarpPieces * kPiece);
      StoreBulkCommit();
    }
    const uint32_t sent = now_;
    now_ = then_;
    then_ = sent;
  }

 private:
  static constexpr int kPiece = sizeof(uint4);

  int first_;  // of the warp's pieces of a panel
  uint32_t now_;
  uint32_t then_;
};

}  // namespace gdn::cuda::prepare
