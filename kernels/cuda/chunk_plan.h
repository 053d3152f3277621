// How the chunked form's two kernels share the SMs, from the sizes of a batch alone.
#pragma once

#include <cstdint>

#include "kernels/ops/operands.h"

namespace gdn::cuda {

struct ChunkPlan {
  int prepare_blocks = 0;  // of an SM each, in pairs
  int wave_heads = 0;      // key heads that both kernels take at a time, through all chunks
};

// For `rows` rows of `chunks` chunks together, on `sms` SMs.
ChunkPlan PlanChunks(const Heads& heads, int64_t rows, int64_t chunks, int sms);

}  // namespace gdn::cuda
