#include "kernels/cuda/chunk_plan.h"

#include <algorithm>

namespace gdn::cuda {

ChunkPlan PlanChunks(const Heads& heads, int64_t rows, int64_t chunks, int sms) {
  const int pairs = sms / 2;
  const int64_t chains = rows * heads.value_heads;  // of a pair of SMs each
  const bool beside = chains <= pairs / 2 && chunks >= 32 * rows;
  const int prepare_pairs = beside ? pairs - static_cast<int>(chains) : pairs;
  return {.prepare_blocks = 2 * std::max(prepare_pairs, 1), .wave_heads = heads.key_heads};
}

}  // namespace gdn::cuda
