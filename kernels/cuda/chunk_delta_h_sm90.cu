#include "kernels/cuda/chunk_sm90.h"
#include "kernels/cuda/dtype.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/tile.cuh"

namespace gdn::cuda {
namespace {

constexpr int kWarps = 4;  // one warpgroup; a warp takes 16 rows of the transposed state
constexpr int kThreads = (kWarps + 1) * 32;
constexpr int kRows = kWarps * kTileDim;
constexpr int kSlices = kSm90Dim / kRows;  // blocks that share a head
constexpr int kBlocks = kChunk / kTileDim;
constexpr int kDimTiles = kSm90Dim / kTileDim;
constexpr int kRecord = kBlocks * kDimTiles * 32;  // 16-byte pieces of 64 x 128 elements
constexpr int kMaxStages = 4;

// One chunk's operands.
struct alignas(1024) Stage {
  uint4 w[kRecord];               // panels
  uint4 k[kRecord];               // panels
  Tile u[kWarps * kBlocks * 32];  // [v block][token block]
  ChunkGates gates;
};

struct alignas(1024) Shared {
  uint64_t full[kMaxStages];
  uint64_t empty[kMaxStages];
};

__device__ __forceinline__ Stage& StageOf(Shared& shared, int n) {
  return reinterpret_cast<Stage*>(&shared + 1)[n];
}

// Where a block works: kRows columns of V, from tile first_block on, of a head of a row.
struct Work {
  int64_t row;
  int head;
  int first_block;
  int64_t first_chunk;
  int64_t end_chunk;
};

// Fills the stages in turn, each once its last chunk has been used; one thread.
__device__ void Produce(const ChunkSm90Params& p, const Work& work, Shared& shared, int stages) {
  const Heads& heads = p.rule.heads;
  const int64_t key_head = work.head / (heads.value_heads / heads.key_heads);
  for (int64_t c = work.first_chunk; c < work.end_chunk; ++c) {
    const auto n = static_cast<unsigned>(c - work.first_chunk);
    const unsigned s = n % stages;
    const uint32_t full = SharedAddress(&shared.full[s]);
    if (n >= static_cast<unsigned>(stages)) {
      BarrierWait(SharedAddress(&shared.empty[s]), (n / stages - 1) & 1);
    }
    Stage& stage = StageOf(shared, s);
    const int64_t record = c * heads.value_heads + work.head;
    const int64_t key_record = c * heads.key_heads + key_head;
    BarrierArriveExpect(full,
                        sizeof(stage.w) + sizeof(stage.k) + sizeof(stage.u) + sizeof(ChunkGates));
    CopyBulk(SharedAddress(stage.w), static_cast<const uint4*>(p.workspace.w) + record * kRecord,
             sizeof(stage.w), full);
    CopyBulk(SharedAddress(stage.u),
             static_cast<const Tile*>(p.workspace.u) + record * kRecord +
                 work.first_block * kBlocks * 32,
             sizeof(stage.u), full);
    CopyBulk(SharedAddress(&stage.gates), p.workspace.gates + record, sizeof(ChunkGates), full);
    CopyBulk(SharedAddress(stage.k),
             static_cast<const uint4*>(p.workspace.k) + key_record * kRecord, sizeof(stage.k),
             full);
  }
}

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

// Sums of a warpgroup, 16 rows of a warp by 16 columns at a time: eight a thread.
template <int N>
__device__ __forceinline__ TileSum SumOf(const float (&d)[N], int tile) {
  const float* e = d + 8 * tile;
  return {{e[0], e[1], e[2], e[3]}, {e[4], e[5], e[6], e[7]}};
}

// A thread's part of kRows x K of the transposed state.
using State = float[kSm90Dim / 2];

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

// What a chunk begins with: v_new's sums, from u, the state's decay over the chunk and those of the
// lane's tokens to its end.
struct Begin {
  float v[kChunk / 2];
  float decay;
  float2 decays[kChunk / 8];
};

template <typename T>
__device__ __forceinline__ void LoadBegin(const Stage& stage, Begin& begin) {
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
#pragma unroll
  for (int i = 0; i < kBlocks; ++i) {
    const TileSum u = UnpackTile<T>(stage.u[(warp * kBlocks + i) * 32 + lane]);
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      begin.v[8 * i + e] = u.left[e];
      begin.v[8 * i + 4 + e] = u.right[e];
    }
  }
  begin.decay = Exp2(stage.gates.gamma[kChunk - 1]);
#pragma unroll
  for (int i = 0; i < kChunk / 8; ++i) {
    begin.decays[i] = reinterpret_cast<const float2*>(stage.gates.decay)[i * 4 + lane % 4];
  }
}

// The chunk in `stage`, with `h` and `v_new` pointing at the lane's part of this warp's tiles:
//   h = S;  v_new_i = u_i - S w_i;  S = exp(gamma_last) * S + sum_i v_new_i * decay_i ⊗ k_i
// all transposed, so that S, v_new and their products keep to registers. Calls next(), once `begin`
// is free to be filled for the chunk after, while the last products are under way.
template <typename T, typename F>
__device__ __forceinline__ void AdvanceChunk(const Stage& stage, State& s, Begin& begin, Tile* h,
                                             Tile* v_new, F&& next) {
  auto& v = begin.v;
  uint4 left[kDimTiles];
#pragma unroll
  for (int c = 0; c < kDimTiles; ++c) left[c] = PackLeft<T>(SumOf(s, c)).r;
#pragma unroll
  for (float& e : s) e *= begin.decay;

  // v += S * (-w), a panel of w at a time
  const uint64_t w = RowsAreN(SharedAddress(stage.w));
  constexpr int kPanelTiles = kDimTiles / 2;
  WarpgroupTouch(left);
  WarpgroupTouch(v);
  WarpgroupFence();
#pragma unroll
  for (int c = 0; c < kDimTiles; ++c) {
    WarpgroupMma<T>(v, left[c], w + (c / kPanelTiles) * (8192 / 16) + c % kPanelTiles * 2);
  }
  WarpgroupCommit();
#pragma unroll
  for (int c = 0; c < kDimTiles; ++c) {
    h[c * 32] = {left[c].x, left[c].z, left[c].y, left[c].w};
  }
  WarpgroupWait();
  WarpgroupTouch(v);

  uint4 decayed[kBlocks];
#pragma unroll
  for (int i = 0; i < kBlocks; ++i) {
    TileSum x = SumOf(v, i);
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      x.left[e] *= e % 2 == 0 ? begin.decays[2 * i].x : begin.decays[2 * i].y;
      x.right[e] *= e % 2 == 0 ? begin.decays[2 * i + 1].x : begin.decays[2 * i + 1].y;
    }
    decayed[i] = PackLeft<T>(x).r;
  }
  // s += (v * decay) * k, 16 tokens at a time
  const uint64_t k = RowsAreK(SharedAddress(stage.k));
  WarpgroupTouch(decayed);
  WarpgroupTouch(s);
  WarpgroupFence();
#pragma unroll
  for (int i = 0; i < kBlocks; ++i) WarpgroupMma<T>(s, decayed[i], k + i * (kTileDim * 128 / 16));
  WarpgroupCommit();
  Tile packed[kBlocks];
#pragma unroll
  for (int i = 0; i < kBlocks; ++i) packed[i] = PackTile<T>(SumOf(v, i));
  // The loads of what is next before the stores, which they would else wait for.
  next();
#pragma unroll
  for (int i = 0; i < kBlocks; ++i) v_new[i * 32] = packed[i];
  WarpgroupWait();
  WarpgroupTouch(s);
}

template <typename T, typename S>
__device__ void Consume(const ChunkSm90Params& p, const Work& work, Shared& shared, int stages) {
  const int lane = threadIdx.x % 32;
  const int v_block = work.first_block + threadIdx.x / 32;
  const int64_t heads = p.rule.heads.value_heads;
  S* pool = static_cast<S*>(p.rule.ssm.data);
  if (pool != nullptr) {
    pool += p.rule.rows.slot(work.row) * p.rule.ssm.slot_stride +
            (int64_t{work.head} * kSm90Dim + v_block * kTileDim) * kSm90Dim;
  }
  State s = {};
  if (pool != nullptr && p.rule.rows.has_state(work.row)) {
    ForEachPair(s, [&](int at, float* pair) {
      const float2 x = LoadPair(pool + at);
      pair[0] = x.x;
      pair[1] = x.y;
    });
  }
  WarpgroupTouch(s);
  Tile* h = static_cast<Tile*>(p.workspace.h) + v_block * kDimTiles * 32 + lane;
  Tile* v_new = static_cast<Tile*>(p.workspace.u) + v_block * kBlocks * 32 + lane;
  unsigned stage = 0;
  unsigned parity = 0;
  Begin begin;
  BarrierWait(SharedAddress(&shared.full[0]), 0);
  LoadBegin<T>(StageOf(shared, 0), begin);
  for (int64_t c = work.first_chunk; c < work.end_chunk; ++c) {
    const int64_t record = c * heads + work.head;
    const unsigned current = stage;
    if (++stage == static_cast<unsigned>(stages)) {
      stage = 0;
      parity ^= 1;
    }
    AdvanceChunk<T>(StageOf(shared, current), s, begin, h + record * 2 * kRecord,
                    v_new + record * kRecord, [&] {
                      if (c + 1 == work.end_chunk) return;
                      BarrierWait(SharedAddress(&shared.full[stage]), parity);
                      LoadBegin<T>(StageOf(shared, stage), begin);
                    });
    BarrierArrive(SharedAddress(&shared.empty[current]));
  }
  if (pool == nullptr) return;
  ForEachPair(s, [&](int at, const float* pair) { StorePair(pool + at, pair[0], pair[1]); });
}

// A warpgroup advances kRows rows of the transposed state, one more warp brings the operands.
template <typename T, typename S>
__global__ void __launch_bounds__(kThreads, 1) DeltaHKernel(ChunkSm90Params p, int stages) {
  extern __shared__ __align__(1024) unsigned char dynamic[];
  Shared& shared = *reinterpret_cast<Shared*>(dynamic);
  if (threadIdx.x == 0) {
    for (int i = 0; i < stages; ++i) {
      BarrierInit(SharedAddress(&shared.full[i]), 1);
      BarrierInit(SharedAddress(&shared.empty[i]), kWarps * 32);
    }
    BarrierInitFence();
  }
  __syncthreads();
  GridDependencyWait();
  GridDependencyLaunch();
  const unsigned heads = p.rule.heads.value_heads;
  const int64_t row = blockIdx.x / kSlices / heads;
  if (p.rule.rows.slot(row) < 0) return;
  const Work work = {row, static_cast<int>(blockIdx.x / kSlices % heads),
                     static_cast<int>(blockIdx.x % kSlices) * kWarps, p.chunks.chunk_offsets[row],
                     p.chunks.chunk_offsets[row + 1]};
  if (work.first_chunk == work.end_chunk) return;
  const int warp = __shfl_sync(~0u, static_cast<int>(threadIdx.x / 32), 0);  // uniform
  if (warp < kWarps) {
    Consume<T, S>(p, work, shared, stages);
  } else if (threadIdx.x == kWarps * 32) {
    Produce(p, work, shared, stages);
  }
}

template <typename T, typename S>
cudaError_t Launch(const ChunkSm90Params& p, cudaStream_t stream) {
  const int64_t blocks = p.rule.rows.count * p.rule.heads.value_heads * kSlices;
  // Short rows need no deep pipeline, but several blocks on an SM.
  const int stages = p.chunks.count <= 2 * p.rule.rows.count ? 2 : kMaxStages;
  const size_t bytes = sizeof(Shared) + stages * sizeof(Stage);
  return LaunchDependent(DeltaHKernel<T, S>, dim3(static_cast<unsigned>(blocks)), kThreads, bytes,
                         stream, p, stages);
}

template <typename T>
cudaError_t LaunchState(const ChunkSm90Params& p, cudaStream_t stream) {
  return p.rule.ssm.type == DType::kBf16 ? Launch<T, __nv_bfloat16>(p, stream)
                                         : Launch<T, float>(p, stream);
}

}  // namespace

cudaError_t ChunkDeltaHSm90(const ChunkSm90Params& p, cudaStream_t stream) {
  return p.rule.io == DType::kFp16 ? LaunchState<__half>(p, stream)
                                   : LaunchState<__nv_bfloat16>(p, stream);
}

}  // namespace gdn::cuda
