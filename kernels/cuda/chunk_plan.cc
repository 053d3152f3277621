#include "kernels/cuda/chunk_plan.h"

#include <algorithm>

namespace gdn::cuda {
namespace {

// Measured on an H200. The times are in µs: of one SM for a chunk and key head and for each value
// head with it, and of the chain from chunk to chunk.
constexpr double kPrepareKeyHead = 1.3;
constexpr double kPrepareValueHead = 2.6;
constexpr double kChainChunk = 0.92;
constexpr int64_t kBesideRow = 32;  // chunks that are worth a launch of their own
constexpr int64_t kLongRow = 8;     // chunks beside which a row's beginning is short

}  // namespace

ChunkPlan PlanChunks(const Heads& heads, int64_t rows, int64_t chunks, int sms) {
  const int group = heads.value_heads / heads.key_heads;
  const int64_t chains = rows * heads.value_heads;
  ChunkPlan plan = {.lead_chunks = chunks,
                    .lead_blocks = sms / 2 * 2,
                    .item_heads = std::min(group, kMaxItemHeads),
                    .chain_clusters = chains};
  // A cluster fetches the next short row while it is at work on one; those of long rows follow one
  // another as SMs become free, whatever the rows' lengths.
  if (chunks < kLongRow * rows) plan.chain_clusters = std::min<int64_t>(chains, sms / 2);
  // A single row leaves SMs, which prepare what it comes to later.
  if (rows != 1 || chunks < kBesideRow || 2 * chains > sms - 2) return plan;
  plan.beside_blocks = static_cast<int>((sms - 2 * chains) / 2 * 2);
  const double work = heads.key_heads * (kPrepareKeyHead + kPrepareValueHead * group);
  const double beside = kChainChunk * plan.beside_blocks / work;  // of the chunks
  plan.lead_chunks = beside >= 1 ? 0 : chunks - static_cast<int64_t>(chunks * beside);
  // Where the chain is the slower, what counts is how soon its first chunks are there.
  if (plan.lead_chunks == 0) plan.item_heads = 1;
  return plan;
}

}  // namespace gdn::cuda
