// What a block of the fused kernel has in shared memory, and its chunks (chunk_sm90.h).
#pragma once

#include "kernels/cuda/device/panel.cuh"
#include "kernels/cuda/device/tensor_map.h"
#include "kernels/cuda/device/warpgroup.cuh"
#include "kernels/cuda/prefill/chunk_sm90.h"
#include "kernels/cuda/prefill/unit_lower.cuh"

namespace gdn::cuda::fused {

// Two warpgroups advance the state, each half of V; two make the chunks' T and R in turn.
constexpr int kGroupThreads = 128;
constexpr int kHalves = 2;
constexpr int kMakers = 2;
constexpr int kThreads = (kHalves + kMakers) * kGroupThreads;
constexpr int kHalf = kSm90Dim / kHalves;
constexpr int kBlocks = kChunk / kTileDim;
constexpr int kDimTiles = kSm90Dim / kTileDim;
constexpr int kPlaces = 4;
constexpr int kRecord = 2 * kPanelPieces;  // 16-byte pieces of 64 x 128 elements
constexpr int kRecords = 2;                // that `loaded` counts: keys and queries

// A chunk of a head, and what is to be done about its state.
struct Place {
  int64_t token;  // the first
  int64_t state;  // where the head's begins in the pool, in elements
  int head;
  int key_head;
  int length;    // in tokens; 0: there are no more chunks
  bool first;    // of the row, or of its half
  bool last;     // likewise
  bool restore;  // with the first: there is a state to begin with
};

// A block's chunks one after another: of the heads of rows that begin in its share of all chunks,
// the longest first, where a head of a row counts for kFusedHeadChunks more than it has; in phases,
// of half of one of them. PAD rows are left out.
class Cursor {
 public:
  // Before the first chunk. By whole warps, as all lookups.
  __device__ void Begin(const ChunkSm90Params& p) {
    if (p.plan.phases) return BeginHalf(p);
    const int64_t total = Before(p, p.rule.rows.count);
    const int64_t begin = total * blockIdx.x / gridDim.x;
    end_ = total * (blockIdx.x + 1) / gridDim.x;
    rank_ = RankAt(p, begin);
    Enter(p);
    const int64_t cost = length_ + kFusedHeadChunks;
    head_ = static_cast<int>((begin - Before(p, rank_) + cost - 1) / cost) - 1;
    next_ = Before(p, rank_) + (head_ + 1) * cost;
    chunk_ = length_;
    from_ = 0;
  }

  // To the next chunk, if there is one. Calls pad(token, tokens, head) for PAD rows.
  template <typename F>
  __device__ void Next(const ChunkSm90Params& p, F&& pad) {
    ++chunk_;
#pragma unroll 1
    while (chunk_ >= length_ && next_ < end_) NextHead(p, pad);
  }

  __device__ Place place(const ChunkSm90Params& p) const {
    Place place;
    const int64_t before = int64_t{chunk_} * kChunk;
    place.token = token_ + before;
    place.state = slot_ * p.rule.ssm.slot_stride + int64_t{head_} * (kSm90Dim * kSm90Dim);
    place.head = head_;
    place.key_head = head_ / (p.rule.heads.value_heads / p.rule.heads.key_heads);
    place.length = chunk_ < length_ ? static_cast<int>(min(tokens_ - before, int64_t{kChunk})) : 0;
    place.first = chunk_ == from_;
    place.last = chunk_ + 1 == length_;
    place.restore = restore_;
    return place;
  }

 private:
  // Of three heads, the first gets on in phases 0 and 1, the second in 0 and 2, the third in 1 and
  // 2.
  __device__ void BeginHalf(const ChunkSm90Params& p) {
    const int heads = p.rule.heads.value_heads;
    const unsigned member = blockIdx.x % 2 == 0 ? p.phase / 2 : p.phase == 0 ? 1 : 2;
    const int64_t at = int64_t{blockIdx.x / 2} * kPhases + member;
    const bool any = at < p.rule.rows.count * heads;
    next_ = 0;
    end_ = any ? 1 : 0;
    rank_ = any ? at / heads : 0;
    head_ = static_cast<int>(at % heads) - 1;
    Enter(p);
    const int half = (length_ + 1) / 2;
    const bool second = p.phase == (member == 0 ? 1 : 2);
    from_ = second ? half : 0;
    if (!second) length_ = half;
    restore_ = restore_ || second;
    chunk_ = length_;
  }

  // What comes before the rank-th row, of all heads.
  static __device__ int64_t Before(const ChunkSm90Params& p, int64_t rank) {
    const int64_t* ranked = p.chunks.longest_first;
    int64_t chunks;
    if (rank == p.rule.rows.count) {
      chunks = p.chunks.count;
    } else {
      chunks = ranked == nullptr ? p.chunks.chunk_offsets[rank] : ranked[2 * rank + 1];
    }
    return (chunks + kFusedHeadChunks * rank) * p.rule.heads.value_heads;
  }

  // Of the last row that begins at or before `at`; 32 are looked at at a time.
  static __device__ int64_t RankAt(const ChunkSm90Params& p, int64_t at) {
    int64_t low = 0;
    int64_t high = p.rule.rows.count;
    while (high - low > 1) {
      const int64_t step = (high - low + 31) / 32;
      const int64_t rank = low + threadIdx.x % 32 * step;
      const bool before = rank < high && Before(p, rank) <= at;
      low += (31 - __clz(static_cast<int>(__ballot_sync(~0u, before)))) * step;
      high = min(high, low + step);
    }
    return low;
  }

  template <typename F>
  __device__ void NextHead(const ChunkSm90Params& p, F&& pad) {
    if (++head_ == p.rule.heads.value_heads) {
      head_ = 0;
      ++rank_;
      Enter(p);
    }
    next_ += length_ + kFusedHeadChunks;
    chunk_ = from_;
    if (slot_ < 0) {
      pad(token_, tokens_, head_);
      chunk_ = length_;
    }
  }

  __device__ void Enter(const ChunkSm90Params& p) {
    const Rows& rows = p.rule.rows;
    const int64_t* ranked = p.chunks.longest_first;
    const int64_t row = ranked == nullptr ? rank_ : ranked[2 * rank_];
    token_ = rows.offsets[row];
    tokens_ = rows.offsets[row + 1] - token_;
    length_ = static_cast<int>((tokens_ + kChunk - 1) / kChunk);
    slot_ = rows.slot(row);
    restore_ = p.rule.ssm.data != nullptr && rows.has_state(row);
  }

  int64_t rank_;   // of the row
  int64_t token_;  // the row's first
  int64_t tokens_;
  int64_t slot_;
  int64_t next_;  // the chunks before the next head
  int64_t end_;
  int from_;    // the first chunk that is taken
  int length_;  // in chunks; those that are taken end there
  int head_;
  int chunk_;
  bool restore_;
};

// A factor for each token of a chunk; those of a thread's four columns of a tile side by side.
using TokenFactors = float4[kBlocks][4];

// What the state's warps multiply a chunk's tokens by.
enum Factor {
  kForY,  // -exp(gamma_i) * n_i
  kBeta,  // 0 beyond the row's end
  kForO,  // scale * exp(gamma_i) * nq_i
  kForS,  // n_i * d_i
  kFactors
};
struct Factors {
  TokenFactors of[kFactors];
  float decay;  // exp(gamma_last)
};

__device__ __forceinline__ float4 TileOf(const TokenFactors& factors, int tile) {
  return factors[tile][threadIdx.x % 4];
}
__device__ __forceinline__ void SetFactor(TokenFactors& factors, int token, float factor) {
  const int column = token % kTileDim;
  float* thread = &factors[token / kTileDim][column % 8 / 2].x;
  thread[column / 8 * 2 + column % 2] = factor;
}

// What a maker brings and makes: of the chunk at hand, and the next one's keys and queries. What
// was there is overwritten once the state's warps have used it.
struct alignas(1024) Maker {
  uint4 k[2][kRecord];
  uint4 q[2][kRecord];
  uint4 v[kRecord];       // then the output
  uint4 t[kPanelPieces];  // zeros above the diagonal, as in r
  uint4 r[kPanelPieces];
  LowerTiles lower;  // -A and the inverses of its diagonal's tiles
  Factors factors;
  float gamma[kChunk];  // / ln 2
  float beta[kChunk];
  float column[kChunk];   // n_j * exp(gamma_e - gamma_j), e the last of j's 16 tokens
  float k_norm[kChunk];   // n
  float q_scale[kChunk];  // scale * nq
  float next_g[kChunk];
  float next_beta[kChunk];
  Place places[kPlaces];  // of this maker's chunks in turn, up to the next but one
  Cursor cursor;          // at that
};

struct Shared {
  Maker makers[kMakers];
  uint64_t loaded[kMakers][2];  // keys and queries
  uint64_t made[kMakers];       // T, R and what they go with
  uint64_t read[kMakers];       // keys, queries and T have been used
  uint64_t used[kMakers];       // all of it has, and the output has left

  // Of the block's n-th chunk.
  __device__ Maker& maker(unsigned n) { return makers[n % kMakers]; }
  __device__ const Place& place(unsigned n) { return maker(n).places[n / kMakers % kPlaces]; }
};

// The tensors of whole chunks. Of others, rows are copied one by one: what lies beyond is the next
// row's.
struct Tensors {
  TensorMap q;
  TensorMap k;
  TensorMap v;
  TensorMap o;
};

__device__ __forceinline__ int GroupWarp() {
  return __shfl_sync(~0u, static_cast<int>(threadIdx.x % kGroupThreads / 32), 0);  // uniform
}

// Brings the state that a row begins with into L2: not long before it is loaded, or what other
// blocks bring has taken its place by then.
__device__ __forceinline__ void PrefetchState(const ChunkSm90Params& p, const Place& at) {
  if (at.length == 0 || !at.first || !at.restore) return;
  const auto size = static_cast<int64_t>(SizeOf(p.rule.ssm.type));
  PrefetchBulk(static_cast<const unsigned char*>(p.rule.ssm.data) + at.state * size,
               static_cast<unsigned>(kSm90Dim * kSm90Dim * size));
}

}  // namespace gdn::cuda::fused
