#include "kernels/cuda/prefill/chunk_plan.h"

#include <algorithm>
#include <cmath>

namespace gdn::cuda {
namespace {

// Measured on an H200. The times are in µs: of one SM for a chunk and key head and for each value
// head with it (two together; divided as their instructions are); of the chain from chunk to chunk
// and to begin with a row; and of the fused kernel from chunk to chunk.
constexpr double kPrepareKeyHead = 1.6;
constexpr double kPrepareValueHead = 1.25;
constexpr double kPrepareOnAll = 1.4;  // times that where all SMs prepare, as memory is shared
constexpr double kChainChunk = 0.92;
constexpr double kChainStart = 3.3;
constexpr double kFusedChunk = 3.3;
constexpr double kSmallLead = 0.1;  // of the chunks: not worth a launch of its own
constexpr int64_t kBesideRow = 32;  // chunks that are
constexpr int64_t kLongRow = 8;     // chunks beside which a row's beginning is short

// Of one SM, for a chunk of all heads.
double PrepareMicros(const Heads& heads, int item_heads) {
  const int group = heads.value_heads / heads.key_heads;
  const int pieces = (group + item_heads - 1) / item_heads;
  return heads.key_heads * (kPrepareKeyHead * pieces + kPrepareValueHead * group);
}

// All chunks prepared, then from chunk to chunk: a head of a row by two SMs.
double PreparedMicros(const Heads& heads, const ChunkSizes& sizes, int sms) {
  const auto chunks = static_cast<double>(sizes.chunks);
  const double prepare = kPrepareOnAll * PrepareMicros(heads, kMaxItemHeads) * chunks / sms;
  const int pairs = sms / 2;
  const double chain =
      std::max(static_cast<double>(sizes.longest), chunks * heads.value_heads / pairs);
  const double rows = static_cast<double>(sizes.rows) * heads.value_heads;
  return prepare + kChainChunk * chain + kChainStart * rows / pairs;
}

// A head of a row by one SM. Where there are more than SMs, some get half a head more than others.
double FusedMicros(const Heads& heads, const ChunkSizes& sizes, int sms) {
  const auto all = static_cast<double>(sizes.chunks + kFusedHeadChunks * sizes.rows);
  const double mean = all * heads.value_heads / sms;
  const int64_t known = sizes.longest > 0 ? sizes.longest : sizes.chunks / sizes.rows;
  const auto longest = static_cast<double>(known + kFusedHeadChunks);
  const bool more = sizes.rows * heads.value_heads > sms;
  return kFusedChunk * (more ? std::max(longest, mean + longest / 2) : longest);
}

}  // namespace

ChunkPlan PlanChunks(const Heads& heads, const ChunkSizes& sizes, int sms, bool may_fuse) {
  const int64_t rows = sizes.rows;
  const int64_t chunks = sizes.chunks;
  const int group = heads.value_heads / heads.key_heads;
  const int64_t chains = rows * heads.value_heads;
  ChunkPlan plan = {.lead_chunks = chunks,
                    .lead_blocks = sms / 2 * 2,
                    .item_heads = std::min(group, kMaxItemHeads),
                    .chain_clusters = chains};
  if (may_fuse && FusedMicros(heads, sizes, sms) < PreparedMicros(heads, sizes, sms)) {
    plan.fused_blocks = static_cast<int>(std::min<int64_t>(chains, sms));
    return plan;
  }
  // A cluster fetches the next short row while it is at work on one; those of long rows follow one
  // another as SMs become free, whatever the rows' lengths.
  if (chunks < kLongRow * rows) plan.chain_clusters = std::min<int64_t>(chains, sms / 2);
  // A single row leaves SMs, which prepare what it comes to later.
  if (rows != 1 || chunks < kBesideRow || 2 * chains > sms - 2) return plan;
  plan.beside_blocks = static_cast<int>((sms - 2 * chains) / 2 * 2);
  // Of the chunks, what can be prepared while the chain goes through all of them.
  const auto beside = [&](int item_heads) {
    return kChainChunk * plan.beside_blocks / PrepareMicros(heads, item_heads);
  };
  // Where the chain is the slower all the same, what counts is how soon its first chunks are there.
  if (beside(1) >= 1) plan.item_heads = 1;
  const double lead = 1.0 - beside(plan.item_heads);
  plan.lead_chunks = lead < kSmallLead ? 0 : static_cast<int64_t>(std::ceil(chunks * lead));
  plan.ring = plan.lead_chunks == 0;
  return plan;
}

}  // namespace gdn::cuda
