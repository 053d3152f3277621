#include "kernels/cuda/prefill/segment_plan.h"

#include <algorithm>
#include <cmath>

namespace gdn::cuda {
namespace {

// Measured on an H200, in µs: of one SM for a chunk and key head and for each value head with it,
// of few heads and where almost all SMs prepare; of the chain and of the tracks from chunk to
// chunk; of a step of the composition; and from the end of one kernel to where the next is at work,
// its last stores included.
constexpr double kPrepareKeyHead = 1.5;
constexpr double kPrepareValueHead = 1.2;
constexpr double kChainChunk = 0.92;
constexpr double kTrackChunk = 1.1;
constexpr double kCompose = 1.55;
constexpr double kBeginTracks = 5;
constexpr double kBeginRest = 9;
constexpr int kPrepareGroups = 3;    // that share an SM, each at work on an item
constexpr int64_t kLongRow = 32;     // chunks of a row that is worth a look
constexpr double kWorthwhile = 0.9;  // of the time of a whole row

double ItemMicros(int item_heads) { return kPrepareKeyHead + kPrepareValueHead * item_heads; }

// µs until the first chunks are prepared, and until all are.
struct Prepared {
  double first;
  double all;
};

Prepared PreparedBy(const Heads& heads, int64_t chunks, int item_heads, int blocks) {
  const int group = heads.value_heads / heads.key_heads;
  const int64_t items = chunks * heads.key_heads * ((group + item_heads - 1) / item_heads);
  const double first = kPrepareGroups * ItemMicros(item_heads);
  return {first, std::max(first, static_cast<double>(items) * ItemMicros(item_heads) / blocks)};
}

// At least.
double WholeMicros(int64_t chunks) {
  return kPrepareGroups * ItemMicros(1) + kChainChunk * static_cast<double>(chunks);
}

struct Cut {
  Segments segments;
  double micros;
};

// `parallel` segments beside one another after the first, whose chain ends when the others' tracks
// do; these begin once all is prepared.
Cut CutInto(int parallel, int64_t chunks, const Prepared& prepared) {
  const double track = kTrackChunk / parallel;
  const double first =
      (prepared.all + kBeginTracks + track * static_cast<double>(chunks) - prepared.first) /
      (kChainChunk + track);
  Segments s;
  s.first_chunks = std::clamp<int64_t>(std::llround(first), 1, chunks - 2);
  const int64_t rest = chunks - s.first_chunks;
  s.chunks = (rest + parallel - 1) / parallel;
  s.count = static_cast<int>(1 + (rest + s.chunks - 1) / s.chunks);
  const auto longest = static_cast<double>(s.chunks);
  const double before = std::max(prepared.first + kChainChunk * static_cast<double>(s.first_chunks),
                                 prepared.all + kBeginTracks + kTrackChunk * longest);
  return {s, before + kCompose * (s.count - 2) + kBeginRest + kChainChunk * longest};
}

}  // namespace

std::optional<SegmentPlan> PlanSegments(const Heads& heads, int64_t rows, int64_t chunks, int sms) {
  const int value_heads = heads.value_heads;
  // Each segment of a head has a cluster of two SMs.
  const int most = std::min(sms / 2, kMaxSegmentHeads - value_heads) / value_heads;
  if (rows != 1 || chunks < kLongRow || most < kLeastSegments - 1) return std::nullopt;
  SegmentPlan plan;
  plan.chunks = {.beside_blocks = (sms - 2 * value_heads) / 2 * 2,
                 .item_heads = std::min(value_heads / heads.key_heads, kMaxItemHeads),
                 .chain_clusters = value_heads};
  const Prepared prepared =
      PreparedBy(heads, chunks, plan.chunks.item_heads, plan.chunks.beside_blocks);
  double best = kWorthwhile * WholeMicros(chunks);
  for (int parallel = kLeastSegments - 1; parallel <= most; ++parallel) {
    const Cut cut = CutInto(parallel, chunks, prepared);
    if (cut.segments.count < kLeastSegments || cut.micros >= best) continue;
    best = cut.micros;
    plan.segments = cut.segments;
  }
  if (plan.segments.count == 1) return std::nullopt;
  return plan;
}

}  // namespace gdn::cuda
