// How a long row of few heads is cut, so that its chunks keep more SMs busy than a chain for each
// head can (chunk_segments_sm90.h), from the sizes of a batch alone.
#pragma once

#include <cstdint>
#include <optional>

#include "kernels/cuda/prefill/chunk_plan.h"

namespace gdn::cuda {

// The segments of a row, in chunks. All have at least one.
struct Segments {
  int count = 1;             // 1: rows are whole
  int64_t first_chunks = 0;  // of the first
  int64_t chunks = 0;        // of each other, except that the last may have fewer

  constexpr int64_t begin(int i) const { return i == 0 ? 0 : first_chunks + (i - 1) * chunks; }
};

// From row to row of a map: what a warp reads of it at a time lies in different banks.
inline constexpr int kMapStride = 128 + 4;

// At least three: the first, one or more that are gone through twice, and the last.
inline constexpr int kLeastSegments = 3;
inline constexpr int kMaxSegmentHeads = 96;  // segments times value heads

struct SegmentPlan {
  Segments segments;
  ChunkPlan chunks;  // of the first segment's chain and of what is prepared beside it: all chunks
};

// For `rows` rows of `chunks` chunks together, on `sms` SMs; none where whole rows are as fast.
std::optional<SegmentPlan> PlanSegments(const Heads& heads, int64_t rows, int64_t chunks, int sms);

}  // namespace gdn::cuda
