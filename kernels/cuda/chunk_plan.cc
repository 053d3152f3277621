#include "kernels/cuda/chunk_plan.h"

#include <algorithm>
#include <cmath>

namespace gdn::cuda {
namespace {

// Measured on an H200. The times are in µs: of one SM for a chunk and key head and for each value
// head with it (two together; divided as their instructions are), and of the chain from chunk to
// chunk.
constexpr double kPrepareKeyHead = 1.6;
constexpr double kPrepareValueHead = 1.25;
constexpr double kChainChunk = 0.92;
constexpr double kSmallLead = 0.1;  // of the chunks: not worth a launch of its own
constexpr int64_t kBesideRow = 32;  // chunks that are
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
  // Of the chunks, what can be prepared while the chain goes through all of them.
  const auto beside = [&](int item_heads) {
    const int pieces = (group + item_heads - 1) / item_heads;
    const double work = kPrepareKeyHead * pieces + kPrepareValueHead * group;
    return kChainChunk * plan.beside_blocks / (heads.key_heads * work);
  };
  // Where the chain is the slower all the same, what counts is how soon its first chunks are there.
  if (beside(1) >= 1) plan.item_heads = 1;
  const double lead = 1.0 - beside(plan.item_heads);
  plan.lead_chunks = lead < kSmallLead ? 0 : static_cast<int64_t>(std::ceil(chunks * lead));
  return plan;
}

}  // namespace gdn::cuda
