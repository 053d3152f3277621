#include "kernels/cuda/chunk_sm90.h"
#include "kernels/cuda/dtype.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/tile.cuh"

namespace gdn::cuda {
namespace {

constexpr int kBlocks = kChunk / kTileDim;
constexpr int kDimTiles = kSm90Dim / kTileDim;
constexpr int kRecord = kBlocks * kDimTiles * 32;  // Tiles of 64 x 128 elements, by lane
constexpr int kMaxStages = 4;

// One chunk's operands. A warp of the block takes 16 rows of the state, transposed: [V][K].
template <int kWarps>
struct Stage {
  Tile w[kRecord];                // [token block][k block]
  Tile kt[kRecord];               // [token block][k block]
  Tile u[kWarps * kBlocks * 32];  // [v block][token block]
  ChunkGates gates;
};

template <int kWarps>
struct Shared {
  uint64_t full[kMaxStages];
  uint64_t empty[kMaxStages];
  alignas(128) Stage<kWarps> stages[];
};

// Where a block works: 16 * kWarps columns of V, from v block first_block on, of a head of a row.
struct Work {
  int64_t row;
  int head;
  int first_block;
  int64_t first_chunk;
  int64_t end_chunk;
};

// Fills the stages in turn, each once its last chunk has been used; one thread.
template <int kWarps>
__device__ void Produce(const ChunkSm90Params& p, const Work& work, Shared<kWarps>& shared,
                        int stages) {
  const Heads& heads = p.rule.heads;
  const int64_t key_head = work.head / (heads.value_heads / heads.key_heads);
  for (int64_t c = work.first_chunk; c < work.end_chunk; ++c) {
    const auto n = static_cast<unsigned>(c - work.first_chunk);
    const unsigned s = n % stages;
    const uint32_t full = SharedAddress(&shared.full[s]);
    if (n >= static_cast<unsigned>(stages)) {
      BarrierWait(SharedAddress(&shared.empty[s]), (n / stages - 1) & 1);
    }
    Stage<kWarps>& stage = shared.stages[s];
    const int64_t record = c * heads.value_heads + work.head;
    BarrierArriveExpect(full, sizeof(Stage<kWarps>));
    CopyBulk(SharedAddress(stage.w), static_cast<const Tile*>(p.workspace.w) + record * kRecord,
             sizeof(stage.w), full);
    CopyBulk(SharedAddress(stage.u),
             static_cast<const Tile*>(p.workspace.u) + record * kRecord +
                 work.first_block * kBlocks * 32,
             sizeof(stage.u), full);
    CopyBulk(SharedAddress(&stage.gates), p.workspace.gates + record, sizeof(ChunkGates), full);
    CopyBulk(SharedAddress(stage.kt),
             static_cast<const Tile*>(p.workspace.kt) + (c * heads.key_heads + key_head) * kRecord,
             sizeof(stage.kt), full);
  }
}

// A warp's 16 rows of the state.
using State = TileSum[kDimTiles];

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

// Calls f(element of the slot's [V][K] slice, first of the pair of sums) for the lane's pairs.
template <typename F>
__device__ __forceinline__ void ForEachPair(State& s, F&& f) {
  const int lane = threadIdx.x % 32;
  const int at = lane / 4 * kSm90Dim + lane % 4 * 2;
#pragma unroll
  for (int c = 0; c < kDimTiles; ++c) {
    f(at + c * kTileDim, s[c].left);
    f(at + c * kTileDim + 8, s[c].right);
    f(at + c * kTileDim + 8 * kSm90Dim, s[c].left + 2);
    f(at + c * kTileDim + 8 * kSm90Dim + 8, s[c].right + 2);
  }
}

// The chunk in `stage`, with `h` and `v_new` pointing at the lane's part of this warp's tiles:
//   h = S;  v_new_i = u_i - S w_i;  S = exp(gamma_last) * S + sum_i v_new_i * decay_i ⊗ k_i
// all transposed, so that S, v_new and their products keep to the warp's registers.
template <typename T, int kWarps>
__device__ __forceinline__ void AdvanceChunk(const Stage<kWarps>& stage, State& s, Tile* h,
                                             Tile* v_new) {
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  TileSum v[kBlocks];
#pragma unroll
  for (int i = 0; i < kBlocks; ++i) {
    v[i] = UnpackTile<T>(stage.u[(warp * kBlocks + i) * 32 + lane]);
  }
#pragma unroll
  for (int c = 0; c < kDimTiles; ++c) {
    const Tile packed = PackTile<T>(s[c]);
    h[c * 32] = packed;
#pragma unroll
    for (int i = 0; i < kBlocks; ++i) {
      MultiplyAdd<T>(v[i], packed, stage.w[(i * kDimTiles + c) * 32 + lane]);
    }
  }
  const float decay = __expf(stage.gates.gamma[kChunk - 1]);
#pragma unroll
  for (int c = 0; c < kDimTiles; ++c) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      s[c].left[e] *= decay;
      s[c].right[e] *= decay;
    }
  }
#pragma unroll
  for (int i = 0; i < kBlocks; ++i) {
    v_new[i * 32] = PackTile<T>(v[i]);
    const float2* d = reinterpret_cast<const float2*>(stage.gates.decay + i * kTileDim) + lane % 4;
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      v[i].left[e] *= e % 2 == 0 ? d[0].x : d[0].y;
      v[i].right[e] *= e % 2 == 0 ? d[4].x : d[4].y;
    }
    const Tile decayed = PackTile<T>(v[i]);
#pragma unroll
    for (int c = 0; c < kDimTiles; ++c) {
      MultiplyAdd<T>(s[c], decayed, stage.kt[(i * kDimTiles + c) * 32 + lane]);
    }
  }
}

template <typename T, typename S, int kWarps>
__device__ void Consume(const ChunkSm90Params& p, const Work& work, Shared<kWarps>& shared,
                        int stages) {
  const int lane = threadIdx.x % 32;
  const int v_block = work.first_block + threadIdx.x / 32;
  const int64_t heads = p.rule.heads.value_heads;
  S* pool = static_cast<S*>(p.rule.ssm.data);
  if (pool != nullptr) {
    pool += p.rule.rows.slot(work.row) * p.rule.ssm.slot_stride +
            (int64_t{work.head} * kSm90Dim + v_block * kTileDim) * kSm90Dim;
  }
  State s;
  if (pool != nullptr && p.rule.rows.has_state(work.row)) {
    ForEachPair(s, [&](int at, float* pair) {
      const float2 x = LoadPair(pool + at);
      pair[0] = x.x;
      pair[1] = x.y;
    });
  }
  Tile* h = static_cast<Tile*>(p.workspace.h) + v_block * kDimTiles * 32 + lane;
  Tile* v_new = static_cast<Tile*>(p.workspace.u) + v_block * kBlocks * 32 + lane;
  unsigned stage = 0;
  unsigned parity = 0;
  for (int64_t c = work.first_chunk; c < work.end_chunk; ++c) {
    const int64_t record = c * heads + work.head;
    BarrierWait(SharedAddress(&shared.full[stage]), parity);
    AdvanceChunk<T>(shared.stages[stage], s, h + record * 2 * kRecord, v_new + record * kRecord);
    __syncwarp();
    if (lane == 0) BarrierArrive(SharedAddress(&shared.empty[stage]));
    if (++stage == static_cast<unsigned>(stages)) {
      stage = 0;
      parity ^= 1;
    }
  }
  if (pool == nullptr) return;
  ForEachPair(s, [&](int at, const float* pair) { StorePair(pool + at, pair[0], pair[1]); });
}

// The last warp brings the operands, each other one advances 16 rows of the transposed state.
template <typename T, typename S, int kWarps>
__global__ void __launch_bounds__((kWarps + 1) * 32) DeltaHKernel(ChunkSm90Params p, int stages) {
  extern __shared__ __align__(128) unsigned char dynamic[];
  auto& shared = *reinterpret_cast<Shared<kWarps>*>(dynamic);
  if (threadIdx.x == 0) {
    for (int i = 0; i < stages; ++i) {
      BarrierInit(SharedAddress(&shared.full[i]), 1);
      BarrierInit(SharedAddress(&shared.empty[i]), kWarps);
    }
    BarrierInitFence();
  }
  __syncthreads();
  GridDependencyWait();
  GridDependencyLaunch();
  constexpr unsigned kSlices = kDimTiles / kWarps;
  const unsigned heads = p.rule.heads.value_heads;
  const int64_t row = blockIdx.x / kSlices / heads;
  if (p.rule.rows.slot(row) < 0) return;
  const Work work = {row, static_cast<int>(blockIdx.x / kSlices % heads),
                     static_cast<int>(blockIdx.x % kSlices) * kWarps, p.chunks.chunk_offsets[row],
                     p.chunks.chunk_offsets[row + 1]};
  if (work.first_chunk == work.end_chunk) return;
  if (threadIdx.x < kWarps * 32) {
    Consume<T, S>(p, work, shared, stages);
  } else if (threadIdx.x == kWarps * 32) {
    Produce(p, work, shared, stages);
  }
}

template <typename T, typename S, int kWarps>
cudaError_t Launch(const ChunkSm90Params& p, cudaStream_t stream) {
  const int64_t blocks = p.rule.rows.count * p.rule.heads.value_heads * (kDimTiles / kWarps);
  // Short rows need no deep pipeline, but several blocks on an SM.
  const int stages = p.chunks.count <= 2 * p.rule.rows.count ? 2 : kMaxStages;
  const size_t bytes = sizeof(Shared<kWarps>) + stages * sizeof(Stage<kWarps>);
  return LaunchDependent(DeltaHKernel<T, S, kWarps>, dim3(static_cast<unsigned>(blocks)),
                         (kWarps + 1) * 32, bytes, stream, p, stages);
}

template <typename T, typename S>
cudaError_t LaunchWidth(const ChunkSm90Params& p, cudaStream_t stream) {
  // Narrow slices spread few heads over more SMs; wide ones read w and k less often.
  constexpr int64_t kFewHeads = 32;
  const bool few = p.rule.rows.count * p.rule.heads.value_heads < kFewHeads;
  return few ? Launch<T, S, 2>(p, stream) : Launch<T, S, 4>(p, stream);
}

template <typename T>
cudaError_t LaunchState(const ChunkSm90Params& p, cudaStream_t stream) {
  return p.rule.ssm.type == DType::kBf16 ? LaunchWidth<T, __nv_bfloat16>(p, stream)
                                         : LaunchWidth<T, float>(p, stream);
}

}  // namespace

cudaError_t ChunkDeltaHSm90(const ChunkSm90Params& p, cudaStream_t stream) {
  return p.rule.io == DType::kFp16 ? LaunchState<__half>(p, stream)
                                   : LaunchState<__nv_bfloat16>(p, stream);
}

}  // namespace gdn::cuda
