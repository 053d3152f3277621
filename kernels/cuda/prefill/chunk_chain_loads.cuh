// The warps that bring the chain's operands (chunk_chain_shared.cuh).
#pragma once

#include "kernels/cuda/prefill/chunk_chain_shared.cuh"
#include "kernels/cuda/prefill/chunk_ring.cuh"

namespace gdn::cuda::chain {

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

// The chunks in the stages.
template <int kStages>
class Occupants {
 public:
  // The chunk takes the place of the oldest, which is returned.
  __device__ int64_t Next(int64_t chunk) {
    const int64_t oldest = chunks_[0];
#pragma unroll
    for (int i = 1; i < kStages; ++i) chunks_[i - 1] = chunks_[i];
    chunks_[kStages - 1] = chunk;
    return oldest;
  }

 private:
  int64_t chunks_[kStages] = {};
};

// The values of a block's warpgroups, from `values` on, and what prepare has made: of what both
// blocks need each fetches half, for both.
template <typename T, typename Form>
__device__ __forceinline__ void LoadRest(const ChunkSm90Params& p, const Work& work,
                                         const T* values, Turn<Form::kStages>& turn,
                                         Occupants<Form::kStages>& occupants,
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
    const ChunkFactors& factors = p.workspace.factors[chunk * p.rule.heads.value_heads + work.head];
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
    // Both blocks have done with what was here.
    const int64_t before = occupants.Next(chunk);
    if (turn.again && half == 0) Take(p, before, work.head);
    if constexpr (Form::kOutput) {
      BarrierArriveExpect(end_full, sizeof(stage.x) + sizeof(stage.p) + kOutputFactorBytes);
      fetch(stage.p, p.workspace.p, record, kPanelPieces / 2, end_full);
      CopyBulk(SharedAddress(stage.factors.for_o), factors.for_o, kOutputFactorBytes, end_full);
    } else {
      BarrierArriveExpect(end_full, sizeof(stage.x));
    }
    fetch(stage.x, p.workspace.x, record, kPanelPieces, end_full);
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
  Occupants<Form::kStages> occupants;
  ForEachWork(p, range, [&](const Work& work) {
    if (work.pad || work.chunks == 0) return;
    if (part != Part::kRest) {
      LoadTokens<T, Form>(p, work, part == Part::kKeys, turn, landings, shared);
      return;
    }
    if constexpr (Form::kOutput) PrefetchState(p, work);
    LoadRest<T, Form>(p, work, BlockValues<T, Form>(p, work.head), turn, occupants, shared);
  });
  landings.End();
}

}  // namespace gdn::cuda::chain
