// How the chunked form's two kernels share the SMs, from the sizes of a batch alone.
#pragma once

#include <cstdint>

#include "kernels/ops/operands.h"

namespace gdn::cuda {

inline constexpr int kMaxItemHeads = 2;

// The first `lead_chunks` chunks are prepared on all SMs, the others beside the chain.
struct ChunkPlan {
  int64_t lead_chunks = 0;
  int lead_blocks = 0;         // of prepare, an SM each, in pairs
  int beside_blocks = 0;       // likewise
  int item_heads = 0;          // value heads that are prepared together, one after another
  int fused_blocks = 0;
  int64_t chain_clusters = 0;  // of two blocks; each takes heads of rows one after another
};

// For `rows` rows of `chunks` chunks together, on `sms` SMs.
ChunkPlan PlanChunks(const Heads& heads, int64_t rows, int64_t chunks, int sms);

}  // namespace gdn::cuda
