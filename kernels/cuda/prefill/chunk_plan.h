// How the chunked form shares the SMs, from the sizes of a batch alone.
#pragma once

#include <cstdint>

#include "kernels/ops/operands.h"

namespace gdn::cuda {

inline constexpr int kMaxItemHeads = 2;
// As many chunks as a block of the fused kernel makes in the time that it takes to change heads.
inline constexpr int kFusedHeadChunks = 2;
// Of a fused form in phases: launches, in each of which two of three heads get on by half of their
// chunks.
inline constexpr int kPhases = 3;

struct ChunkSizes {
  int64_t rows = 0;     // at least one
  int64_t chunks = 0;   // of all rows
  int64_t longest = 0;  // chunks of a row at most; 0: not known, taken for the mean
};

// What the fused kernel may be used for: nothing, heads of rows from their first chunk to the last,
// or halves of these too, for which a state needs a place of fp32 meanwhile.
enum class Fusing { kNone, kWholeRows, kHalves };

// Either a block of the fused kernel takes heads of rows one after another, or half of one in each
// phase; or chunks are prepared for chains: the first `lead_chunks` on all SMs, the others beside
// the chains.
struct ChunkPlan {
  int fused_blocks = 0;  // an SM each; 0: prepared
  bool phases = false;
  int64_t lead_chunks = 0;
  int lead_blocks = 0;         // of prepare, an SM each, in pairs
  int beside_blocks = 0;       // likewise
  int item_heads = 0;          // value heads that are prepared together, one after another
  int64_t chain_clusters = 0;  // of two blocks; each takes heads of rows one after another
  bool ring = false;           // what is prepared passes through a ring in L2 (chunk_ring.cuh)
};

// On `sms` SMs.
ChunkPlan PlanChunks(const Heads& heads, const ChunkSizes& sizes, int sms, Fusing fusing);

}  // namespace gdn::cuda
