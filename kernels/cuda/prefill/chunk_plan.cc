#include "kernels/cuda/prefill/chunk_plan.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace gdn::cuda {
namespace {

// Measured, on H100s where memory counts and on an H200 elsewhere. The times are in µs: of one SM
// for a chunk and key head and for each value head with it (two together; divided as their
// instructions are); of the chain from chunk to chunk, with what prepare beside it adds for each
// head, and to begin with a row; and of the fused kernel from chunk to chunk.
constexpr double kPrepareKeyHead = 1.6;
constexpr double kPrepareValueHead = 1.25;
constexpr double kPrepareOnAll = 1.9;  // times that where all SMs prepare, as memory is shared
constexpr double kChainChunk = 0.92;
constexpr double kBesideHead = 0.01;
constexpr double kChainStart = 3.3;
constexpr double kFusedChunk = 3.3;
constexpr int64_t kPhaseChunks = 2;  // chunks beside which a phase's beginning is short
constexpr double kSmallLead = 0.1;   // of the chunks: not worth a launch of its own
constexpr int64_t kBesideRow = 32;   // chunks that are
constexpr int64_t kLongRow = 8;      // chunks beside which a row's beginning is short

// Chunks of the longest row; the mean where it is not known.
int64_t Longest(const ChunkSizes& sizes) {
  return sizes.longest > 0 ? sizes.longest : (sizes.chunks + sizes.rows - 1) / sizes.rows;
}

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
      std::max(static_cast<double>(Longest(sizes)), chunks * heads.value_heads / pairs);
  const double rows = static_cast<double>(sizes.rows) * heads.value_heads;
  return prepare + kChainChunk * chain + kChainStart * rows / pairs;
}

double BesideChunk(const Heads& heads) { return kChainChunk + kBesideHead * heads.value_heads; }

// Blocks that prepare beside a chain for each head, which takes the rows one after another.
int BesideBlocks(const Heads& heads, int sms) { return (sms - 2 * heads.value_heads) / 2 * 2; }

// Of all chunks, what can be prepared while such chains go through all of them.
double PreparedBeside(const Heads& heads, int item_heads, int sms) {
  return BesideChunk(heads) * BesideBlocks(heads, sms) / PrepareMicros(heads, item_heads);
}

// Where that is less than all, the others are prepared before.
double BesideMicros(const Heads& heads, const ChunkSizes& sizes, int sms) {
  if (BesideBlocks(heads, sms) < 2) return std::numeric_limits<double>::infinity();
  const auto chunks = static_cast<double>(sizes.chunks);
  const double lead = std::max(0.0, 1.0 - PreparedBeside(heads, kMaxItemHeads, sms));
  const double prepare = kPrepareOnAll * PrepareMicros(heads, kMaxItemHeads) * chunks / sms;
  return lead * prepare + BesideChunk(heads) * chunks +
         kChainStart * static_cast<double>(sizes.rows);
}

// A head of a row by one SM. Where there are more than SMs, some get half a head more than others.
double FusedMicros(const Heads& heads, const ChunkSizes& sizes, int sms) {
  const auto all = static_cast<double>(sizes.chunks + kFusedHeadChunks * sizes.rows);
  const double mean = all * heads.value_heads / sms;
  const auto longest = static_cast<double>(Longest(sizes) + kFusedHeadChunks);
  const bool more = sizes.rows * heads.value_heads > sms;
  return kFusedChunk * (more ? std::max(longest, mean + longest / 2) : longest);
}

// Two for each three heads of rows.
int64_t PhaseBlocks(int64_t heads_of_rows) { return (heads_of_rows + kPhases - 1) / kPhases * 2; }

// Where there are somewhat more heads than SMs.
double PhasesMicros(const Heads& heads, const ChunkSizes& sizes, int sms) {
  const int64_t blocks = PhaseBlocks(sizes.rows * heads.value_heads);
  if (blocks > sms) return std::numeric_limits<double>::infinity();
  const int64_t half = (Longest(sizes) + 1) / 2;
  return kFusedChunk * static_cast<double>(kPhases * (half + kFusedHeadChunks + kPhaseChunks));
}

}  // namespace

ChunkPlan PlanChunks(const Heads& heads, const ChunkSizes& sizes, int sms, Fusing fusing) {
  const int64_t rows = sizes.rows;
  const int64_t chunks = sizes.chunks;
  const double prepared = PreparedMicros(heads, sizes, sms);
  const double beside = BesideMicros(heads, sizes, sms);
  const int group = heads.value_heads / heads.key_heads;
  const int64_t chains = rows * heads.value_heads;
  ChunkPlan plan = {.lead_chunks = chunks,
                    .lead_blocks = sms / 2 * 2,
                    .item_heads = std::min(group, kMaxItemHeads),
                    .chain_clusters = chains};
  const double fused = FusedMicros(heads, sizes, sms), phases = PhasesMicros(heads, sizes, sms);
  if (fusing == Fusing::kHalves && phases < std::min({prepared, beside, fused})) {
    plan.fused_blocks = static_cast<int>(PhaseBlocks(chains));
    plan.phases = true;
    return plan;
  }
  if (fusing != Fusing::kNone && fused < std::min(prepared, beside)) {
    plan.fused_blocks = static_cast<int>(std::min<int64_t>(chains, sms));
    return plan;
  }
  // A cluster fetches the next short row while it is at work on one; those of long rows follow one
  // another as SMs become free, whatever the rows' lengths.
  if (chunks < kLongRow * rows) plan.chain_clusters = std::min<int64_t>(chains, sms / 2);
  // A chain for each head leaves SMs, which prepare what it comes to later.
  if (chunks < kBesideRow || prepared <= beside) return plan;
  plan.chain_clusters = heads.value_heads;
  plan.beside_blocks = BesideBlocks(heads, sms);
  // Where the chain is the slower all the same, what counts is how soon its first chunks are there.
  if (PreparedBeside(heads, 1, sms) >= 1) plan.item_heads = 1;
  const double lead = 1.0 - PreparedBeside(heads, plan.item_heads, sms);
  plan.lead_chunks = lead < kSmallLead ? 0 : static_cast<int64_t>(std::ceil(chunks * lead));
  plan.ring = plan.lead_chunks == 0;
  return plan;
}

}  // namespace gdn::cuda
