#include <algorithm>

#include "kernels/cuda/chunk_sm90.h"
#include "kernels/cuda/dtype.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/tile.cuh"

namespace gdn::cuda {
namespace {

// A head of a row is a cluster of two blocks, each with half of V. In a block four warps advance
// the state, one brings their operands, one takes their output away.
constexpr int kHalves = 2;
constexpr int kWarps = 4;  // a warpgroup; a warp takes 16 rows of the transposed state
constexpr int kLoadWarp = kWarps;
constexpr int kStoreWarp = kWarps + 1;
constexpr int kThreads = (kWarps + 2) * 32;
constexpr int kRows = kSm90Dim / kHalves;
constexpr int kBlocks = kChunk / kTileDim;
constexpr int kDimTiles = kSm90Dim / kTileDim;
constexpr int kPanel = kChunk * 8;  // 16-byte pieces of 64 x 64 elements
constexpr int kStages = 3;          // as many as fit
// Bytes from token to token of v and o in shared memory: 16 more than they have, so that eight
// tokens lie in different banks.
constexpr int kValueStride = kRows * 2 + 16;
constexpr uint16_t kBoth = 3;  // blocks of the cluster

// One chunk's operands. Those of the first barrier are used up before those of the second.
struct alignas(1024) Stage {
  uint4 k[2 * kPanel];
  uint4 q[2 * kPanel];
  uint4 x[2 * kPanel];
  uint4 p[kPanel];
  unsigned char v[kChunk * kValueStride];
  ChunkFactors factors;
};
constexpr int kBeginBytes = offsetof(ChunkFactors, for_o);  // of the factors, with k and v
constexpr int kEndBytes = sizeof(ChunkFactors) - kBeginBytes;

template <typename Out>
constexpr int kOutStride = kRows * static_cast<int>(sizeof(Out)) + 16;
template <typename Out>
constexpr int kOutBuffers = sizeof(Out) == 2 ? 2 : 1;

struct Barriers {
  uint64_t begin_full[kStages];
  uint64_t begin_empty[kStages];
  uint64_t end_full[kStages];
  uint64_t end_empty[kStages];
  uint64_t o_full[2];
  uint64_t o_empty[2];
};

struct Shared {
  Stage stages[kStages];
  unsigned char o[2 * kChunk * kValueStride];
  Barriers barriers;
};
static_assert(kOutBuffers<float> * kOutStride<float> <= 2 * kValueStride);

// Where a block works.
struct Work {
  int64_t row;
  int head;
  int half;  // of V
  int64_t first_token;
  int64_t tokens;
  int64_t first_chunk;
  int chunks;

  __device__ int length(int n) const {
    return static_cast<int>(min(tokens - int64_t{n} * kChunk, int64_t{kChunk}));
  }
};

__device__ __forceinline__ Work WorkOf(const ChunkSm90Params& p) {
  const unsigned n = blockIdx.x / kHalves;
  Work work;
  work.row = n / p.rule.heads.value_heads;
  work.head = static_cast<int>(n % p.rule.heads.value_heads);
  work.half = static_cast<int>(ClusterRank());
  work.first_token = p.rule.rows.offsets[work.row];
  work.tokens = p.rule.rows.offsets[work.row + 1] - work.first_token;
  work.first_chunk = p.chunks.chunk_offsets[work.row];
  work.chunks = static_cast<int>(p.chunks.chunk_offsets[work.row + 1] - work.first_chunk);
  return work;
}

// Position in a ring of `kSize` that is gone round again and again.
template <int kSize>
struct Turn {
  int at = 0;
  unsigned parity = 0;

  __device__ void Next() {
    if (++at == kSize) {
      at = 0;
      parity ^= 1;
    }
  }
};

// ---- the loading warp

// Waits for chunks to be ready, looking at 32 at a time.
class ReadyChunks {
 public:
  __device__ ReadyChunks(const ChunkSm90Params& p, const Work& work)
      : flags_(p.workspace.ready + work.first_chunk * p.rule.heads.value_heads + work.head),
        stride_(p.rule.heads.value_heads),
        chunks_(work.chunks) {}

  __device__ void Wait(int n) {
    while (n >= known_) {
      const int chunk = known_ + static_cast<int>(threadIdx.x % 32);
      const bool ready = chunk >= chunks_ || LoadAcquire(flags_ + chunk * stride_) != 0;
      const unsigned waiting = ~__ballot_sync(~0u, ready);
      known_ += waiting == 0 ? 32 : __ffs(static_cast<int>(waiting)) - 1;
    }
    AsyncProxyFenceGlobal();
  }

 private:
  const unsigned* flags_;
  int64_t stride_;
  int chunks_;
  int known_ = 0;  // that are ready
};

// Begins to copy the block's half of v, `length` tokens; the others become zeros, as they meet
// zeros of k, X and P.
template <typename T>
__device__ __forceinline__ void LoadValues(const T* from, int64_t stride, int length,
                                           unsigned char* to) {
  constexpr int kPieces = kRows * sizeof(T) / 16;
  constexpr int kStep = 32 / kPieces;  // tokens at a time
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

// What both blocks need each fetches half of, for both.
template <typename T>
__device__ void Load(const ChunkSm90Params& p, const Work& work, Shared& shared) {
  const Heads& heads = p.rule.heads;
  const int lane = threadIdx.x % 32;
  const int64_t key_head = work.head / (heads.value_heads / heads.key_heads);
  const T* values = static_cast<const T*>(p.rule.v) + work.first_token * p.rule.v_stride +
                    int64_t{work.head} * kSm90Dim + work.half * kRows;
  const auto panel = [&](uint4* to, const void* from, int64_t record, uint32_t full) {
    CopyBulkToAll(SharedAddress(to + work.half * kPanel),
                  static_cast<const uint4*>(from) + (2 * record + work.half) * kPanel,
                  kPanel * sizeof(uint4), full, kBoth);
  };
  ReadyChunks ready(p, work);
  Turn<kStages> turn;
  for (int n = 0; n < work.chunks; ++n, turn.Next()) {
    Stage& stage = shared.stages[turn.at];
    const int64_t chunk = work.first_chunk + n;
    const int64_t record = chunk * heads.value_heads + work.head;
    const int64_t key_record = chunk * heads.key_heads + key_head;
    const ChunkFactors& factors = p.workspace.factors[record];
    ready.Wait(n);

    const uint32_t begin_full = SharedAddress(&shared.barriers.begin_full[turn.at]);
    if (n >= kStages) {
      BarrierWait(SharedAddress(&shared.barriers.begin_empty[turn.at]), turn.parity ^ 1);
    }
    if (lane == 0) {
      BarrierArriveExpect(begin_full, sizeof(stage.k) + kBeginBytes);
      panel(stage.k, p.workspace.k, key_record, begin_full);
      CopyBulk(SharedAddress(&stage.factors), &factors, kBeginBytes, begin_full);
    }
    LoadValues(values + int64_t{n} * kChunk * p.rule.v_stride, p.rule.v_stride, work.length(n),
               stage.v);
    CopyAsyncArrive(begin_full);

    const uint32_t end_full = SharedAddress(&shared.barriers.end_full[turn.at]);
    if (n >= kStages) {
      BarrierWait(SharedAddress(&shared.barriers.end_empty[turn.at]), turn.parity ^ 1);
    }
    if (lane == 0) {
      BarrierArriveExpect(end_full,
                          sizeof(stage.q) + sizeof(stage.x) + sizeof(stage.p) + kEndBytes);
      panel(stage.q, p.workspace.q, key_record, end_full);
      panel(stage.x, p.workspace.x, record, end_full);
      CopyBulkToAll(SharedAddress(stage.p + work.half * (kPanel / 2)),
                    static_cast<const uint4*>(p.workspace.p) + (2 * record + work.half) *
                                                                   (kPanel / 2),
                    kPanel / 2 * sizeof(uint4), end_full, kBoth);
      CopyBulk(SharedAddress(stage.factors.for_o), factors.for_o, kEndBytes, end_full);
    }
  }
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

template <typename Out>
__device__ void Store(const ChunkSm90Params& p, const Work& work, Shared& shared) {
  const int lane = threadIdx.x % 32;
  Out* o = static_cast<Out*>(p.rule.o) + work.first_token * p.rule.o_stride +
           int64_t{work.head} * kSm90Dim + work.half * kRows;
  Turn<kOutBuffers<Out>> turn;
  for (int n = 0; n < work.chunks; ++n, turn.Next()) {
    const unsigned char* tokens = shared.o + turn.at * kChunk * kOutStride<Out>;
    BarrierWait(SharedAddress(&shared.barriers.o_full[turn.at]), turn.parity);
    StoreTokens(o + int64_t{n} * kChunk * p.rule.o_stride, p.rule.o_stride, work.length(n), tokens);
    __syncwarp();
    if (lane == 0) BarrierArrive(SharedAddress(&shared.barriers.o_empty[turn.at]));
  }
}

// PAD rows: o = 0
template <typename Out>
__device__ void StoreZeros(const ChunkSm90Params& p, const Work& work) {
  constexpr int kPieces = kRows * sizeof(Out) / sizeof(uint4);
  Out* o = static_cast<Out*>(p.rule.o) + work.first_token * p.rule.o_stride +
           int64_t{work.head} * kSm90Dim + work.half * kRows;
  for (int64_t e = threadIdx.x; e < work.tokens * kPieces; e += kThreads) {
    reinterpret_cast<uint4*>(o + e / kPieces * p.rule.o_stride)[e % kPieces] = {};
  }
}

// ---- the warps that advance the state

template <typename S>
__device__ __forceinline__ float2 LoadPair(const S* p) {
  if constexpr (sizeof(S) == 4) {
    return *reinterpret_cast<const float2*>(p);
  } else {
    return Unpack(*reinterpret_cast<const uint32_t*>(p), S{});
  }
}

template <typename S>
__device__ __forceinline__ void StorePair(S* p, float a, float b) {
  if constexpr (sizeof(S) == 4) {
    *reinterpret_cast<float2*>(p) = {a, b};
  } else {
    *reinterpret_cast<uint32_t*>(p) = PackPair<S>(a, b);
  }
}

using State = float[kSm90Dim / 2];  // a thread's part of kRows x K, transposed
using Tokens = float[kChunk / 2];    // a thread's part of kRows x 64 tokens, transposed
using Operand = uint4[kDimTiles];    // the state as a left operand

// Calls f(element of the slot's [V][K] slice, first of the pair of sums) for the lane's pairs.
template <typename F>
__device__ __forceinline__ void ForEachPair(State& s, F&& f) {
  const int lane = threadIdx.x % 32;
  const int at = lane / 4 * kSm90Dim + lane % 4 * 2;
#pragma unroll
  for (int c = 0; c < 2 * kDimTiles; ++c) {
    f(at + c * 8, s + 4 * c);
    f(at + c * 8 + 8 * kSm90Dim, s + 4 * c + 2);
  }
}

// Multiplies each token's sums by its factor.
__device__ __forceinline__ void ScaleTokens(Tokens& d, const float* factors) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int j = 0; j < kChunk / 8; ++j) {
    const float2 f = reinterpret_cast<const float2*>(factors)[j * 4 + lane % 4];
#pragma unroll
    for (int e = 0; e < 4; ++e) d[4 * j + e] *= e % 2 == 0 ? f.x : f.y;
  }
}

// d = S * bᵀ for the 64 rows of b, which lies in two panels; begins it only.
template <typename T>
__device__ __forceinline__ void MultiplyState(const Operand& s, const uint4* b, Tokens& d) {
  const uint64_t panels = RowsAreN(SharedAddress(b));
  constexpr int kPanelTiles = kDimTiles / 2;
  WarpgroupMma<T, false>(d, s[0], panels);
#pragma unroll
  for (int c = 1; c < kDimTiles; ++c) {
    WarpgroupMma<T>(d, s[c], panels + (c / kPanelTiles) * (8192 / 16) + c % kPanelTiles * 2);
  }
  WarpgroupCommit();
}

// Where this lane loads and stores eight of a token's values, of 16 bits, among the warp's rows.
__device__ __forceinline__ uint32_t ValueAddress(const unsigned char* tokens) {
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  return SharedAddress(tokens) + (lane / 16 * 8 + lane % 8) * kValueStride +
         (warp * kTileDim + lane / 8 % 2 * 8) * 2;
}

// The values of 64 tokens in the places of sums.
template <typename T>
__device__ __forceinline__ void UnpackValues(const unsigned char* tokens, Tokens& v) {
  const uint32_t address = ValueAddress(tokens);
#pragma unroll
  for (int t = 0; t < kBlocks; ++t) {
    const uint4 r = LoadMatricesTransposed(address + t * kTileDim * kValueStride);
    const uint32_t pairs[4] = {r.x, r.y, r.z, r.w};
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const float2 pair = Unpack(pairs[e], T{});
      v[8 * t + 2 * e] = pair.x;
      v[8 * t + 2 * e + 1] = pair.y;
    }
  }
}

// Sums of 64 tokens as rows of tokens.
template <typename Out>
__device__ __forceinline__ void StoreOutput(const Tokens& o, unsigned char* tokens) {
  if constexpr (sizeof(Out) == 2) {
    const uint32_t address = ValueAddress(tokens);
#pragma unroll
    for (int t = 0; t < kBlocks; ++t) {
      StoreMatricesTransposed(address + t * kTileDim * kValueStride, PackLeft<Out>(SumOf(o, t)).r);
    }
  } else {
    const int lane = threadIdx.x % 32;
    const int warp = threadIdx.x / 32;
    unsigned char* to = tokens + lane % 4 * 2 * kOutStride<Out> +
                        (warp * kTileDim + lane / 4) * static_cast<int>(sizeof(Out));
#pragma unroll
    for (int e = 0; e < kChunk / 2; ++e) {
      const int token = e / 4 * 8 + e % 2;
      *reinterpret_cast<float*>(to + token * kOutStride<Out> + e / 2 % 2 * 8 * sizeof(float)) =
          o[e];
    }
  }
}

// This thread has used what `empty` guards; the cluster's other block hears it from the warp.
__device__ __forceinline__ void Release(const uint64_t* empty, const Work& work) {
  const uint32_t barrier = SharedAddress(empty);
  BarrierArrive(barrier);
  __syncwarp();
  if (threadIdx.x % 32 == 0) BarrierArrivePeer(PeerAddress(barrier, work.half ^ 1));
}

// Each chunk's four products one after another, while the threads do what lies between:
//   U = S kᵀ;  O = S qᵀ;  S += Y X with Y = v + for_y * U;  O = for_o * O + Y Pᵀ
// all transposed, so that S and Y keep to registers. U of the next chunk is begun before the end of
// one; of the last chunk it is of whatever lies there, and of no use.
template <typename T, typename Out>
__device__ __forceinline__ void AdvanceChunks(const Work& work, Shared& shared, State& s) {
  Barriers& barriers = shared.barriers;
  Turn<kStages> turn;
  Turn<kOutBuffers<Out>> o_turn;
  Operand left;
  Tokens u;
  const auto begin_next = [&](const Stage& stage, bool any) {
#pragma unroll
    for (int c = 0; c < kDimTiles; ++c) left[c] = PackLeft<T>(SumOf(s, c)).r;
    WarpgroupTouch(left);
    WarpgroupFence();
    MultiplyState<T>(left, stage.k, u);
    const float decay = any ? stage.factors.decay : 1.0f;
#pragma unroll
    for (float& e : s) e *= decay;
  };
  BarrierWait(SharedAddress(&barriers.begin_full[0]), 0);
  begin_next(shared.stages[0], true);
#pragma unroll 1
  for (int n = 0; n < work.chunks; ++n) {
    Stage& stage = shared.stages[turn.at];
    const int current = turn.at;
    Tokens v;
    UnpackValues<T>(stage.v, v);
    BarrierWait(SharedAddress(&barriers.end_full[current]), turn.parity);
    turn.Next();
    WarpgroupWait();
    WarpgroupTouch(u);

    Tokens o;
    WarpgroupFence();
    MultiplyState<T>(left, stage.q, o);
    ScaleTokens(u, stage.factors.for_y);
    uint4 y[kBlocks];
#pragma unroll
    for (int e = 0; e < kChunk / 2; ++e) v[e] += u[e];
#pragma unroll
    for (int t = 0; t < kBlocks; ++t) y[t] = PackLeft<T>(SumOf(v, t)).r;
    const uint64_t x = RowsAreK(SharedAddress(stage.x));
    WarpgroupTouch(y);
    WarpgroupTouch(s);
    WarpgroupFence();
#pragma unroll
    for (int t = 0; t < kBlocks; ++t) WarpgroupMma<T>(s, y[t], x + t * (kTileDim * 128 / 16));
    WarpgroupCommit();
    Release(&barriers.begin_empty[current], work);

    WarpgroupWait<1>();
    WarpgroupTouch(o);
    ScaleTokens(o, stage.factors.for_o);
    const uint64_t p = RowsAreN(SharedAddress(stage.p));
    WarpgroupTouch(o);
    WarpgroupFence();
#pragma unroll
    for (int t = 0; t < kBlocks; ++t) WarpgroupMma<T>(o, y[t], p + t * 2);
    WarpgroupCommit();
    const bool more = n + 1 < work.chunks;
    if (more) BarrierWait(SharedAddress(&barriers.begin_full[turn.at]), turn.parity);
    WarpgroupWait<1>();
    WarpgroupTouch(s);
    begin_next(shared.stages[turn.at], more);

    WarpgroupWait<1>();
    WarpgroupTouch(o);
    Release(&barriers.end_empty[current], work);
    if (n >= kOutBuffers<Out>) {
      BarrierWait(SharedAddress(&barriers.o_empty[o_turn.at]), o_turn.parity ^ 1);
    }
    StoreOutput<Out>(o, shared.o + o_turn.at * kChunk * kOutStride<Out>);
    BarrierArrive(SharedAddress(&barriers.o_full[o_turn.at]));
    o_turn.Next();
  }
  WarpgroupWait();
  WarpgroupTouch(u);
}

template <typename T, typename Out, typename S>
__device__ void Advance(const ChunkSm90Params& p, const Work& work, Shared& shared) {
  S* pool = static_cast<S*>(p.rule.ssm.data);
  if (pool != nullptr) {
    pool += p.rule.rows.slot(work.row) * p.rule.ssm.slot_stride +
            (int64_t{work.head} * kSm90Dim + work.half * kRows + threadIdx.x / 32 * kTileDim) *
                kSm90Dim;
  }
  State s = {};
  if (pool != nullptr && p.rule.rows.has_state(work.row)) {
    ForEachPair(s, [&](int at, float* pair) {
      const float2 x = LoadPair(pool + at);
      pair[0] = x.x;
      pair[1] = x.y;
    });
  }
  AdvanceChunks<T, Out>(work, shared, s);
  if (pool == nullptr) return;
  ForEachPair(s, [&](int at, const float* pair) { StorePair(pool + at, pair[0], pair[1]); });
}

// ---- the kernel

__device__ void InitBarriers(Barriers& barriers) {
  const auto init = [](auto& of_stages, unsigned arrivals) {
    for (uint64_t& barrier : of_stages) BarrierInit(SharedAddress(&barrier), arrivals);
  };
  init(barriers.begin_full, 1 + 32);
  init(barriers.begin_empty, kWarps * 32 + kWarps);
  init(barriers.end_full, 1);
  init(barriers.end_empty, kWarps * 32 + kWarps);
  init(barriers.o_full, kWarps * 32);
  init(barriers.o_empty, 1);
  BarrierInitFence();
}

template <typename T, typename Out, typename S>
__global__ void __cluster_dims__(kHalves, 1, 1) __launch_bounds__(kThreads, 1)
    ChainKernel(ChunkSm90Params p) {
  extern __shared__ __align__(1024) unsigned char dynamic[];
  Shared& shared = *reinterpret_cast<Shared*>(dynamic);
  const Work work = WorkOf(p);
  const int warp = __shfl_sync(~0u, static_cast<int>(threadIdx.x / 32), 0);  // uniform
  if (work.chunks > 0 && p.rule.rows.slot(work.row) >= 0) {
    if (threadIdx.x == 0) InitBarriers(shared.barriers);
    ClusterSync();
    if (warp < kWarps) {
      Advance<T, Out, S>(p, work, shared);
    } else if (warp == kLoadWarp) {
      Load<T>(p, work, shared);
    } else if (warp == kStoreWarp) {
      Store<Out>(p, work, shared);
    }
    __syncwarp();
    ClusterSync();
  } else {
    StoreZeros<Out>(p, work);
  }
  GridDependencyWait();  // so that the end of this is that of prepare too
}

template <typename T, typename Out, typename S>
cudaError_t Launch(const ChunkSm90Params& p, cudaStream_t stream) {
  const int64_t blocks = p.rule.rows.count * p.rule.heads.value_heads * kHalves;
  return LaunchDependent(ChainKernel<T, Out, S>, dim3(static_cast<unsigned>(blocks)), kThreads,
                         sizeof(Shared), stream, p);
}

template <typename T, typename Out>
cudaError_t LaunchState(const ChunkSm90Params& p, cudaStream_t stream) {
  return p.rule.ssm.type == DType::kBf16 ? Launch<T, Out, __nv_bfloat16>(p, stream)
                                         : Launch<T, Out, float>(p, stream);
}

template <typename T>
cudaError_t LaunchOut(const ChunkSm90Params& p, cudaStream_t stream) {
  return p.rule.o_type == DType::kFp32 ? LaunchState<T, float>(p, stream)
                                       : LaunchState<T, T>(p, stream);
}

}  // namespace

cudaError_t ChunkChainSm90(const ChunkSm90Params& p, cudaStream_t stream) {
  return p.rule.io == DType::kFp16 ? LaunchOut<__half>(p, stream)
                                   : LaunchOut<__nv_bfloat16>(p, stream);
}

}  // namespace gdn::cuda
