#include "kernels/cuda/chunk_plan.h"

#include <algorithm>

namespace gdn::cuda {
namespace {

// Measured on an H200, in µs: of one SM for a chunk and key head and for each value head with it,
// and of a pair of SMs from chunk to chunk.
constexpr double kPrepareKeyHead = 2.0;
constexpr double kPrepareValueHead = 2.8;
constexpr double kChainChunk = 0.85;

}  // namespace

ChunkPlan PlanChunks(const Heads& heads, int64_t rows, int64_t chunks, int sms) {
  constexpr int kGroups = 3;    // that prepare one item each at a time, of an SM
  constexpr int kMaxHeads = 4;  // of an item
  const int group = heads.value_heads / heads.key_heads;
  const int64_t chain_sms = 2 * rows * heads.value_heads;
  ChunkPlan plan = {.lead_chunks = chunks, .lead_blocks = sms / 2 * 2};
  plan.item_heads = chunks * heads.key_heads < 2 * kGroups * sms ? 1 : std::min(group, kMaxHeads);
  // One long row leaves SMs that prepare what it comes to later.
  if (rows > 1 || chain_sms > sms - 4) return plan;
  plan.beside_blocks = static_cast<int>((sms - chain_sms) / 2 * 2);
  const double work = heads.key_heads * (kPrepareKeyHead + kPrepareValueHead * group);
  const double beside = kChainChunk * static_cast<double>(chunks) * plan.beside_blocks / work;
  plan.lead_chunks = std::max<int64_t>(0, chunks - static_cast<int64_t>(beside));
  return plan;
}

}  // namespace gdn::cuda
