// What the chain has in shared memory, and the works that its clusters take one after another.
#pragma once

#include "kernels/cuda/device/dtype.cuh"
#include "kernels/cuda/device/panel.cuh"
#include "kernels/cuda/prefill/chunk_sm90.h"

namespace gdn::cuda::chain {

// A head of a row or of a segment is a cluster of two blocks that need the same operands. In a
// block a few warps bring these; warpgroups advance 64 rows each of a transposed state, a warp 16.
constexpr int kPair = 2;
constexpr int kHalves = 2;  // of V
constexpr int kRows = kSm90Dim / kHalves;
constexpr int kBlocks = kChunk / kTileDim;
constexpr int kDimTiles = kSm90Dim / kTileDim;
// Bytes from token to token of v and o in shared memory: 16 more than they have, so that eight
// tokens lie in different banks.
constexpr int kValueStride = kRows * 2 + 16;
constexpr uint16_t kBoth = 3;  // blocks of the cluster

// With output each block has half of V, a warp for each part of the operands and one that takes the
// output away.
template <typename OutType>
struct WithOutput {
  using Out = OutType;
  static constexpr bool kOutput = true;
  static constexpr int kWarpgroups = 1;
  static constexpr int kStages = 3;  // as many as fit
  static constexpr int kWarps = 4 * kWarpgroups;
  static constexpr int kLoaders = 3;
  static constexpr int kThreads = (kWarps + kLoaders + 1) * 32;

  // One chunk's operands. Those of the first barrier are used up before those of the second.
  struct alignas(1024) Stage {
    uint4 k[2 * kPanelPieces];
    uint4 q[2 * kPanelPieces];
    uint4 x[2 * kPanelPieces];
    uint4 p[kPanelPieces];
    unsigned char v[kWarpgroups][kChunk * kValueStride];
    ChunkFactors factors;

    __device__ uint4* tokens(bool keys) { return keys ? k : q; }
  };
};

// Without, the first block has the state's track and the second the map's. Two warpgroups hide one
// another's latencies.
struct WithoutOutput {
  using Out = float;
  static constexpr bool kOutput = false;
  static constexpr int kWarpgroups = 2;
  static constexpr int kStages = 4;
  static constexpr int kWarps = 4 * kWarpgroups;
  static constexpr int kLoaders = 2;                  // there are no queries
  static constexpr int kThreads = (kWarps + 4) * 32;  // registers come by warpgroups
  static constexpr int kLoadRegisters = 56;
  static constexpr int kAdvanceRegisters = 224;

  struct alignas(1024) Stage {
    uint4 k[2 * kPanelPieces];
    uint4 x[2 * kPanelPieces];
    unsigned char v[kWarpgroups][kChunk * kValueStride];
    ChunkFactors factors;

    __device__ uint4* tokens(bool) { return k; }
  };
};
constexpr int kBeginBytes = offsetof(ChunkFactors, for_o);  // of the factors, with k and v
constexpr int kOutputFactorBytes = sizeof(ChunkFactors) - kBeginBytes;

template <typename Out>
constexpr int kOutStride = kRows* static_cast<int>(sizeof(Out)) + 16;
template <typename Out>
constexpr int kOutBuffers = sizeof(Out) == 2 ? 2 : 1;

template <int kStages>
struct Barriers {
  uint64_t begin_full[kStages];
  uint64_t begin_empty[kStages];
  uint64_t end_full[kStages];
  uint64_t end_empty[kStages];
  uint64_t o_full[2];
  uint64_t o_empty[2];
};

template <typename Form>
struct Shared {
  typename Form::Stage stages[Form::kStages];
  unsigned char o[Form::kOutput ? 2 * kChunk * kValueStride : 16];
  Barriers<Form::kStages> barriers;
};
static_assert(kOutBuffers<float> * kOutStride<float> <= 2 * kValueStride);

// The segments begin..end of each row, that a launch takes.
struct Range {
  int begin;
  int end;
};

// A head of a row's segment.
struct Work {
  int64_t row;
  int head;
  int segment;
  bool last;  // segment of the row
  int64_t first_token;
  int64_t tokens;
  int64_t first_chunk;
  int chunks;
  bool pad;

  __device__ Work(const ChunkSm90Params& p, const Range& range, unsigned n) {
    const unsigned heads = p.rule.heads.value_heads;
    const unsigned of_row = range.end - range.begin;
    row = n / heads / of_row;
    segment = range.begin + static_cast<int>(n / heads % of_row);
    head = static_cast<int>(n % heads);
    last = segment + 1 == p.segments.count;
    const int64_t row_chunk = p.chunks.chunk_offsets[row];
    first_chunk = row_chunk + p.segments.begin(segment);
    const int64_t end_chunk =
        last ? p.chunks.chunk_offsets[row + 1] : row_chunk + p.segments.begin(segment + 1);
    chunks = static_cast<int>(end_chunk - first_chunk);
    first_token = p.rule.rows.offsets[row] + p.segments.begin(segment) * kChunk;
    tokens = min(int64_t{chunks} * kChunk, p.rule.rows.offsets[row + 1] - first_token);
    pad = p.rule.rows.slot(row) < 0;
  }

  __device__ int length(int n) const {
    return static_cast<int>(min(tokens - int64_t{n} * kChunk, int64_t{kChunk}));
  }
};

// How many they are.
inline int64_t WorkCount(const ChunkSm90Params& p, const Range& range) {
  return p.rule.rows.count * (range.end - range.begin) * p.rule.heads.value_heads;
}

// Calls f(work) for the cluster's share of them.
template <typename F>
__device__ __forceinline__ void ForEachWork(const ChunkSm90Params& p, const Range& range, F&& f) {
  const auto count = static_cast<unsigned>(p.rule.rows.count * p.rule.heads.value_heads *
                                           (range.end - range.begin));
#pragma unroll 1
  for (unsigned n = blockIdx.x / kPair; n < count; n += gridDim.x / kPair) f(Work(p, range, n));
}

// Position in a ring of `kSize` that is gone round again and again.
template <int kSize>
struct Turn {
  int at = 0;
  unsigned parity = 0;
  bool again = false;  // not the first time round

  __device__ void Next() {
    if (++at == kSize) {
      at = 0;
      parity ^= 1;
      again = true;
    }
  }
};

}  // namespace gdn::cuda::chain
