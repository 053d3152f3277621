#include "kernels/cuda/segment_plan.h"

#include <algorithm>
#include <cmath>

namespace gdn::cuda {
namespace {

// Measured on an H200, in µs: of one SM for a chunk and key head and for each value head with it,
// as in chunk_plan.cc; of the chain and of the tracks from chunk to chunk; of a segment's
// composition; and of the three launches more.
constexpr double kPrepareKeyHead = 1.6;
constexpr double kPrepareValueHead = 1.25;
constexpr double kChainChunk = 0.92;
constexpr double kTrackChunk = 0.7;
constexpr double kCompose = 0.9;
constexpr double kLaunches = 8;

double PrepareMicros(const Heads& heads, int item_heads) {
  const int group = heads.value_heads / heads.key_heads;
  const int items = (group + item_heads - 1) / item_heads;
  return heads.key_heads * (kPrepareKeyHead * items + kPrepareValueHead * group);
}

double PlannedMicros(const ChunkPlan& plan, const Heads& heads, int64_t chunks) {
  const double lead = static_cast<double>(plan.lead_chunks) *
                      PrepareMicros(heads, plan.item_heads) / plan.lead_blocks;
  return lead + kChainChunk * static_cast<double>(chunks);
}

// What `work` becomes with `parallel` segments beside one another after the first. The first one's
// chain ends when the others' tracks do, which begin once all is prepared.
struct Cut {
  Segments segments;
  double micros;
};

Cut CutInto(int parallel, int64_t chunks, double prepare) {
  const double tracks = kTrackChunk / parallel;
  const double first = (prepare + tracks * static_cast<double>(chunks)) / (kChainChunk + tracks);
  Segments s;
  s.first_chunks = std::clamp<int64_t>(std::llround(first), 1, chunks - 2);
  const int64_t rest = chunks - s.first_chunks;
  s.chunks = (rest + parallel - 1) / parallel;
  s.count = static_cast<int>(1 + (rest + s.chunks - 1) / s.chunks);
  const auto longest = static_cast<double>(s.chunks);
  const double before =
      std::max(kChainChunk * static_cast<double>(s.first_chunks), prepare + kTrackChunk * longest);
  return {s, before + kCompose * (s.count - 2) + kChainChunk * longest + kLaunches};
}

}  // namespace

std::optional<SegmentPlan> PlanSegments(const Heads& heads, int64_t rows, int64_t chunks, int sms) {
  const int value_heads = heads.value_heads;
  // Each segment of a head has a cluster of two SMs.
  const int most = std::min(sms / 2, kMaxSegmentHeads - value_heads) / value_heads;
  if (rows != 1 || chunks < kLeastSegments || most < kLeastSegments - 1) return std::nullopt;
  SegmentPlan plan;
  plan.chunks = {.beside_blocks = (sms - 2 * value_heads) / 2 * 2,
                 .item_heads = std::min(value_heads / heads.key_heads, 2),
                 .chain_clusters = value_heads};
  const double prepare = static_cast<double>(chunks) *
                         PrepareMicros(heads, plan.chunks.item_heads) / plan.chunks.beside_blocks;
  double best = PlannedMicros(PlanChunks(heads, rows, chunks, sms), heads, chunks);
  for (int parallel = kLeastSegments - 1; parallel <= most; ++parallel) {
    const Cut cut = CutInto(parallel, chunks, prepare);
    if (cut.segments.count < kLeastSegments || cut.micros >= best) continue;
    best = cut.micros;
    plan.segments = cut.segments;
  }
  if (plan.segments.count == 1) return std::nullopt;
  return plan;
}

}  // namespace gdn::cuda
