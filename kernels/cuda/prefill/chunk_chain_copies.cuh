// What the chain has in shared memory, and the warps that bring it there and take it away.
#pragma once

#include "kernels/cuda/device/dtype.cuh"
#include "kernels/cuda/device/panel.cuh"
#include "kernels/cuda/device/tile.cuh"
#include "kernels/cuda/prefill/chunk_ring.cuh"

namespace gdn::cuda::chain {

// A head of a row or of a segment is a cluster of two blocks that need the same operands. In a block
// a few warps bring these; warpgroups advance 64 rows each of a transposed state, a warp 16.
constexpr int kPair = 2;
constexpr int kHalves = 2;  // of V
constexpr int kRows = kSm90Dim / kHalves;
constexpr int kBlocks = kChunk / kTileDim;
constexpr int kDimTiles = kSm90Dim / kTileDim;
constexpr int kPanel = kChunk * 8;  // 16-byte pieces of 64 x 64 elements
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
    uint4 k[2 * kPanel];
    uint4 q[2 * kPanel];
    uint4 x[2 * kPanel];
    uint4 p[kPanel];
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
    uint4 k[2 * kPanel];
    uint4 x[2 * kPanel];
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

// ---- the loading warps

// Waits for chunks of a head to be ready and says where they are, looking at 32 at a time.
class ReadyChunks {
 public:
  __device__ ReadyChunks(const ChunkSm90Params& p, const Work& work)
      : marks_(p.workspace.ready + work.first_chunk * p.rule.heads.value_heads + work.head),
        stride_(p.rule.heads.value_heads),
        chunks_(work.chunks) {}

  // Whether the n-th is in the ring.
  __device__ bool Wait(int n) {
    while (n >= known_) {
      first_ = known_;
      const int chunk = known_ + static_cast<int>(threadIdx.x % 32);
      const unsigned mark =
          chunk < chunks_ ? LoadAcquire(marks_ + chunk * stride_) : kPrepareWarps * kInOwnPlace;
      const unsigned waiting = ~__ballot_sync(~0u, IsReady(mark));
      in_ring_ = __ballot_sync(~0u, mark == kPrepareWarps * kInRing);
      known_ += waiting == 0 ? 32 : __ffs(static_cast<int>(waiting)) - 1;
      __syncwarp();  // a ballot alone does not have a lane see what another has acquired
      AsyncProxyFenceGlobal();
    }
    return (in_ring_ >> (n - first_) & 1) != 0;
  }

 private:
  const unsigned* marks_;
  int64_t stride_;
  int chunks_;
  int known_ = 0;  // that are ready
  int first_ = 0;  // of those looked at
  unsigned in_ring_ = 0;
};

// Begins to copy the block's half of v, `length` tokens; the others become zeros, as they meet
// zeros of k, X and P.
template <typename T>
__device__ __forceinline__ void LoadValues(const T* from, int64_t stride, int length,
                                           unsigned char* to) {
  constexpr int kPieces = kRows * sizeof(T) / 16;  // of a token
  constexpr int kStep = 32 / kPieces;              // tokens at a time
  const int lane = threadIdx.x % 32;
  const int first = lane / kPieces;
  const uint32_t address = SharedAddress(to) + first * kValueStride + lane % kPieces * 16;
  const T* next = from + first * stride + lane % kPieces * 8;
#pragma unroll
  for (int i = 0; i < kChunk; i += kStep) {
    const bool valid = first + i < length;
    CopyAsync16(address + i * kValueStride, valid ? next : from, valid);
    next += kStep * stride;
  }
}

// What a loading warp brings of each chunk.
enum class Part { kRest, kKeys, kQueries };

// Waits until a stage's place is free again.
template <int kStages>
__device__ __forceinline__ void WaitEmpty(const uint64_t (&empty)[kStages],
                                          const Turn<kStages>& turn) {
  if (turn.again) BarrierWait(SharedAddress(&empty[turn.at]), turn.parity ^ 1);
  __syncwarp();  // with what follows this stage goes round again, for a lane still here unseen
}

// Tells barriers of the tokens that this thread copies for the tensor cores, of a stage's once it
// has begun to copy the next one's.
class Landings {
 public:
  __device__ void Begun(const uint64_t& full) {
    CopyAsyncCommit();
    if (last_ != 0) Tell<1>();
    last_ = SharedAddress(&full);
  }
  __device__ void End() {
    if (last_ != 0) Tell<0>();
  }

 private:
  template <int kPending>
  __device__ void Tell() {
    CopyAsyncWait<kPending>();
    AsyncProxyFence();
    BarrierArrive(last_);
  }

  uint32_t last_ = 0;  // that has not been told
};

// A row's keys or queries as they come, 64 tokens a stage.
template <typename T, typename Form>
__device__ __forceinline__ void LoadTokens(const ChunkSm90Params& p, const Work& work, bool keys,
                                           Turn<Form::kStages>& turn, Landings& landings,
                                           Shared<Form>& shared) {
  auto& barriers = shared.barriers;
  const int64_t stride = keys ? p.rule.k_stride : p.rule.q_stride;
  const int64_t key_head = work.head / (p.rule.heads.value_heads / p.rule.heads.key_heads);
  const T* next = static_cast<const T*>(keys ? p.rule.k : p.rule.q) + work.first_token * stride +
                  key_head * kSm90Dim;
#pragma unroll 1
  for (int n = 0; n < work.chunks; ++n, turn.Next(), next += kChunk * stride) {
    WaitEmpty(keys ? barriers.begin_empty : barriers.end_empty, turn);
    LoadPanels<32>(SharedAddress(shared.stages[turn.at].tokens(keys)), next, stride,
                   work.length(n));
    landings.Begun((keys ? barriers.begin_full : barriers.end_full)[turn.at]);
  }
}

// The values of a block's warpgroups, from `values` on, and what prepare has made: of what both
// blocks need each fetches half, for both.
template <typename T, typename Form>
__device__ __forceinline__ void LoadRest(const ChunkSm90Params& p, const Work& work,
                                         const T* values, Turn<Form::kStages>& turn,
                                         Shared<Form>& shared) {
  const bool leader = threadIdx.x % 32 == 0;
  const auto half = static_cast<int>(ClusterRank());
  const auto fetch = [&](uint4* to, const void* from, int64_t record, int pieces, uint32_t full) {
    CopyBulkToAll(SharedAddress(to + half * pieces),
                  static_cast<const uint4*>(from) + (2 * record + half) * pieces,
                  pieces * sizeof(uint4), full, kBoth);
  };
  ReadyChunks ready(p, work);
#pragma unroll 1
  for (int n = 0; n < work.chunks; ++n, turn.Next()) {
    auto& stage = shared.stages[turn.at];
    const int64_t chunk = work.first_chunk + n;
    const ChunkFactors& factors =
        p.workspace.factors[chunk * p.rule.heads.value_heads + work.head];
    const int64_t record = RecordOf(p, chunk, work.head, ready.Wait(n));

    const uint32_t begin_full = SharedAddress(&shared.barriers.begin_full[turn.at]);
    WaitEmpty(shared.barriers.begin_empty, turn);
    if (leader) {
      BarrierArriveExpect(begin_full, kBeginBytes);
      CopyBulk(SharedAddress(&stage.factors), &factors, kBeginBytes, begin_full);
    }
    if (values != nullptr) {
      const T* from = values + (work.first_token + int64_t{n} * kChunk) * p.rule.v_stride;
#pragma unroll
      for (int i = 0; i < Form::kWarpgroups; ++i) {
        LoadValues(from + i * kRows, p.rule.v_stride, work.length(n), stage.v[i]);
      }
    }
    CopyAsyncArrive(begin_full);

    const uint32_t end_full = SharedAddress(&shared.barriers.end_full[turn.at]);
    WaitEmpty(shared.barriers.end_empty, turn);
    if (!leader) continue;
    if (turn.again && half == 0) Take(p, work.head);  // both blocks have, a round before
    if constexpr (Form::kOutput) {
      BarrierArriveExpect(end_full, sizeof(stage.x) + sizeof(stage.p) + kOutputFactorBytes);
      fetch(stage.p, p.workspace.p, record, kPanel / 2, end_full);
      CopyBulk(SharedAddress(stage.factors.for_o), factors.for_o, kOutputFactorBytes, end_full);
    } else {
      BarrierArriveExpect(end_full, sizeof(stage.x));
    }
    fetch(stage.x, p.workspace.x, record, kPanel, end_full);
  }
}

// The first of a head's values that the block needs, of the batch's first token; none for the map.
template <typename T, typename Form>
__device__ __forceinline__ const T* BlockValues(const ChunkSm90Params& p, int head) {
  const int64_t first = int64_t{head} * kSm90Dim;
  if constexpr (Form::kOutput) {
    return static_cast<const T*>(p.rule.v) + first + static_cast<int>(ClusterRank()) * kRows;
  } else {
    return ClusterRank() == 0 ? static_cast<const T*>(p.rule.v) + first : nullptr;
  }
}

// Brings the state that a row begins with into L2.
__device__ __forceinline__ void PrefetchState(const ChunkSm90Params& p, const Work& work) {
  const StatePool& pool = p.rule.ssm;
  if (pool.data == nullptr || work.segment > 0 || !p.rule.rows.has_state(work.row) ||
      threadIdx.x % 32 != 0) {
    return;
  }
  const auto size = static_cast<int64_t>(SizeOf(pool.type));
  const int64_t first = p.rule.rows.slot(work.row) * pool.slot_stride +
                        (int64_t{work.head} * kHalves + ClusterRank()) * kRows * kSm90Dim;
  PrefetchBulk(static_cast<const unsigned char*>(pool.data) + first * size,
               static_cast<unsigned>(kRows * kSm90Dim * size));
}

template <typename T, typename Form>
__device__ void Load(const ChunkSm90Params& p, const Range& range, Part part,
                     Shared<Form>& shared) {
  Turn<Form::kStages> turn;
  Landings landings;
  ForEachWork(p, range, [&](const Work& work) {
    if (work.pad || work.chunks == 0) return;
    if (part != Part::kRest) {
      LoadTokens<T, Form>(p, work, part == Part::kKeys, turn, landings, shared);
      return;
    }
    if constexpr (Form::kOutput) PrefetchState(p, work);
    LoadRest<T, Form>(p, work, BlockValues<T, Form>(p, work.head), turn, shared);
  });
  landings.End();
}

// ---- the storing warp

template <typename Out>
__device__ __forceinline__ void StoreTokens(Out* to, int64_t stride, int length,
                                            const unsigned char* from) {
  constexpr int kPieces = kRows * sizeof(Out) / 16;
  constexpr int kStep = 32 / kPieces;
  const int lane = threadIdx.x % 32;
  const int first = lane / kPieces;
  from += first * kOutStride<Out> + lane % kPieces * 16;
  Out* next = to + first * stride + lane % kPieces * (16 / sizeof(Out));
#pragma unroll 16
  for (int i = 0; i < kChunk; i += kStep) {
    const uint4 x = *reinterpret_cast<const uint4*>(from + i * kOutStride<Out>);
    if (first + i < length) *reinterpret_cast<uint4*>(next) = x;
    next += kStep * stride;
  }
}

// PAD rows: o = 0
template <typename Out>
__device__ void StoreZeros(Out* to, int64_t stride, int64_t tokens) {
  constexpr int kWidth = kRows * sizeof(Out) / sizeof(uint4);
  for (int64_t e = threadIdx.x % 32; e < tokens * kWidth; e += 32) {
    reinterpret_cast<uint4*>(to + e / kWidth * stride)[e % kWidth] = {};
  }
}

template <typename Form>
__device__ void Store(const ChunkSm90Params& p, const Range& range, Shared<Form>& shared) {
  using Out = typename Form::Out;
  Turn<kOutBuffers<Out>> turn;
  const int64_t stride = p.rule.o_stride;
  ForEachWork(p, range, [&](const Work& work) {
    Out* o = static_cast<Out*>(p.rule.o) + work.first_token * stride +
             int64_t{work.head} * kSm90Dim + static_cast<int>(ClusterRank()) * kRows;
    if (work.pad) {
      StoreZeros(o, stride, work.tokens);
      return;
    }
#pragma unroll 1
    for (int n = 0; n < work.chunks; ++n, turn.Next()) {
      BarrierWait(SharedAddress(&shared.barriers.o_full[turn.at]), turn.parity);
      StoreTokens(o + int64_t{n} * kChunk * stride, stride, work.length(n),
                  shared.o + turn.at * kChunk * kOutStride<Out>);
      BarrierArrive(SharedAddress(&shared.barriers.o_empty[turn.at]));
    }
  });
}

}  // namespace gdn::cuda::chain
