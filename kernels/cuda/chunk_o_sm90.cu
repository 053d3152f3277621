#include <algorithm>
#include <type_traits>

#include "kernels/cuda/chunk_sm90.h"
#include "kernels/cuda/chunk_tile.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/tile_rows.cuh"

namespace gdn::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * 32;
constexpr int kBlocks = kChunk / kTileDim;
constexpr int kDimTiles = kSm90Dim / kTileDim;
constexpr int kRecord = kBlocks * kDimTiles * 32;
constexpr int kStages = 2;
constexpr int kHalfTiles = kDimTiles / 2;  // blocks of V that a block takes at a time

// The operands for half of V of one value head.
struct Stage {
  Tile h[kHalfTiles * kDimTiles * 32];    // [v block][k block]
  Tile v_new[kHalfTiles * kBlocks * 32];  // [v block][token block]
  float gamma[kChunk];                    // / ln 2
};

struct Shared {
  unsigned char q[kChunk * kRowBytes];  // afterwards o, a warp its own 16 rows
  unsigned char k[kChunk * kRowBytes];
  Stage stages[kStages];
  float q_scale[kChunk];
  float k_scale[kChunk];  // 1 of bf16 keys, whose norms are in v_new
  uint64_t full[kStages];
};

// Where a block works: chunk, key head and, of its group, value heads first_head..first_head+heads.
struct Work {
  int64_t chunk;
  int key_head;
  int first_head;
  int heads;
  ChunkTile tile;
};

// Begins to bring in unit n: value head n / 2, half n % 2 of V. One thread.
__device__ void Produce(const ChunkSm90Params& p, const Work& work, int n, Shared& shared) {
  Stage& stage = shared.stages[n % kStages];
  const uint32_t full = SharedAddress(&shared.full[n % kStages]);
  const int64_t record = work.chunk * p.rule.heads.value_heads + work.first_head + n / 2;
  const int64_t half = n % 2 * (kRecord / 2);
  BarrierArriveExpect(full, sizeof(Stage));
  CopyBulk(SharedAddress(stage.h),
           static_cast<const Tile*>(p.workspace.h) + record * 2 * kRecord + 2 * half,
           sizeof(stage.h), full);
  CopyBulk(SharedAddress(stage.v_new),
           static_cast<const Tile*>(p.workspace.u) + record * kRecord + half, sizeof(stage.v_new),
           full);
  CopyBulk(SharedAddress(stage.gamma), p.workspace.gates[record].gamma, sizeof(stage.gamma), full);
}

// PAD rows: o = 0
template <typename Out>
__device__ void StoreZeros(const ChunkSm90Params& p, const Work& work) {
  constexpr int kPieces = kSm90Dim * sizeof(Out) / sizeof(uint4);
  Out* o = static_cast<Out*>(p.rule.o) + work.tile.begin * p.rule.o_stride +
           int64_t{work.first_head} * kSm90Dim;
  const int width = work.heads * kPieces;
  for (int e = threadIdx.x; e < work.tile.length * width; e += kThreads) {
    reinterpret_cast<uint4*>(o + e / width * p.rule.o_stride)[e % width] = {};
  }
}

// q k^T of the warp's 16 rows, columns up to the diagonal's tile; q stays in registers.
template <typename T>
__device__ __forceinline__ void MultiplyQueries(const Shared& shared, LeftTile (&q)[kDimTiles],
                                                TileSum (&qk)[kBlocks]) {
  const int warp = threadIdx.x / 32;
  const LaneAddress q_lane(SharedAddress(shared.q));
  const LaneAddress k_lane(SharedAddress(shared.k));
#pragma unroll
  for (int c = 0; c < kDimTiles; ++c) {
    q[c] = LoadLeft16(q_lane, warp * kTileDim, c);
#pragma unroll
    for (int j = 0; j < kBlocks; ++j) {
      if (j <= warp) MultiplyAdd<T>(qk[j], q[c], LoadTile16(k_lane, j * kTileDim, c));
    }
  }
}

// P_ij = q_scale_i * k_scale_j * (q_i · k_j) * exp(gamma_i - gamma_j) for j <= i, else 0
template <typename T>
__device__ __forceinline__ void Scores(const TileSum (&qk)[kBlocks], const float* gamma,
                                       const Shared& shared, LeftTile (&scores)[kBlocks]) {
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const int i = warp * kTileDim + lane / 4;
  const float2 gamma_i = {gamma[i], gamma[i + 8]};
  const float2 scale_i = {shared.q_scale[i], shared.q_scale[i + 8]};
#pragma unroll
  for (int j0 = 0; j0 < kBlocks; ++j0) {
    if (j0 > warp) break;
    TileSum p;
#pragma unroll
    for (int side = 0; side < 2; ++side) {
      const int j = j0 * kTileDim + side * 8 + lane % 4 * 2;
      const float2 gamma_j = *reinterpret_cast<const float2*>(gamma + j);
      const float2 scale_j = *reinterpret_cast<const float2*>(shared.k_scale + j);
      const float* raw = side == 0 ? qk[j0].left : qk[j0].right;
      float* to = side == 0 ? p.left : p.right;
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const float decay = Exp2((e < 2 ? gamma_i.x : gamma_i.y) - (e % 2 ? gamma_j.y : gamma_j.x));
        const float scale = (e < 2 ? scale_i.x : scale_i.y) * (e % 2 ? scale_j.y : scale_j.x);
        to[e] = j + e % 2 <= i + e / 2 * 8 ? raw[e] * scale * decay : 0.0f;
      }
    }
    scores[j0] = PackLeft<T>(p);
  }
}

// Writes the warp's 16 rows of half of V, by way of its own rows of q in shared memory.
template <typename Out>
__device__ void StoreOutput(const ChunkSm90Params& p, const Work& work, int n,
                            const TileSum (&o)[kHalfTiles], Shared& shared) {
  constexpr int kColumns = kHalfTiles * kTileDim;
  constexpr int kPieces = kColumns * sizeof(Out) / sizeof(uint4);
  const int lane = threadIdx.x % 32;
  const int first = threadIdx.x / 32 * kTileDim;
  unsigned char* rows = shared.q + first * kRowBytes;
  // Element (row, column): pieces of 16 bytes are permuted within a row.
  const auto at = [&](int row, int column) {
    const int byte = column * static_cast<int>(sizeof(Out));
    return rows + row * (kPieces * 16) + (((byte / 16) ^ (row & 7)) * 16) + byte % 16;
  };
  const auto store = [&](int row, int column, float a, float b) {
    if constexpr (sizeof(Out) == 4) {
      *reinterpret_cast<float2*>(at(row, column)) = {a, b};
    } else {
      *reinterpret_cast<uint32_t*>(at(row, column)) = PackPair<Out>(a, b);
    }
  };
#pragma unroll
  for (int c = 0; c < kHalfTiles; ++c) {
    const int row = lane / 4;
    const int column = c * kTileDim + lane % 4 * 2;
    store(row, column, o[c].left[0], o[c].left[1]);
    store(row, column + 8, o[c].right[0], o[c].right[1]);
    store(row + 8, column, o[c].left[2], o[c].left[3]);
    store(row + 8, column + 8, o[c].right[2], o[c].right[3]);
  }
  __syncwarp();
  Out* to = static_cast<Out*>(p.rule.o) + work.tile.begin * p.rule.o_stride +
            int64_t{work.first_head + n / 2} * kSm90Dim + n % 2 * kColumns;
#pragma unroll
  for (int e = lane; e < kTileDim * kPieces; e += 32) {
    const int row = e / kPieces;
    const int piece = e % kPieces;
    if (first + row >= work.tile.length) continue;
    reinterpret_cast<uint4*>(to + (first + row) * p.rule.o_stride)[piece] =
        *reinterpret_cast<const uint4*>(rows + row * (kPieces * 16) + ((piece ^ (row & 7)) * 16));
  }
  __syncwarp();
}

// o_i = scale * (exp(gamma_i) * q_scale_i * S q_i + sum over j <= i of P_ij * v_new_j)
template <typename T>
__device__ __forceinline__ void Output(const Stage& stage, const LeftTile (&q)[kDimTiles],
                                       const LeftTile (&scores)[kBlocks], float scale,
                                       const Shared& shared, TileSum (&o)[kHalfTiles]) {
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
#pragma unroll
  for (int c = 0; c < kDimTiles; ++c) {
#pragma unroll
    for (int v = 0; v < kHalfTiles; ++v) {
      MultiplyAdd<T>(o[v], q[c], stage.h[(v * kDimTiles + c) * 32 + lane]);
    }
  }
  const int i = warp * kTileDim + lane / 4;
  const float top = Exp2(stage.gamma[i]) * shared.q_scale[i];
  const float bottom = Exp2(stage.gamma[i + 8]) * shared.q_scale[i + 8];
#pragma unroll
  for (int v = 0; v < kHalfTiles; ++v) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      o[v].left[e] *= e < 2 ? top : bottom;
      o[v].right[e] *= e < 2 ? top : bottom;
    }
  }
#pragma unroll
  for (int j = 0; j < kBlocks; ++j) {
    if (j > warp) break;
#pragma unroll
    for (int v = 0; v < kHalfTiles; ++v) {
      MultiplyAdd<T>(o[v], scores[j], stage.v_new[(v * kBlocks + j) * 32 + lane]);
    }
  }
#pragma unroll
  for (int v = 0; v < kHalfTiles; ++v) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      o[v].left[e] *= scale;
      o[v].right[e] *= scale;
    }
  }
}

template <typename T, typename Out>
__global__ void __launch_bounds__(kThreads, 2)
    OutputKernel(ChunkSm90Params p, int heads_per_block) {
  extern __shared__ __align__(kRowBytes) unsigned char dynamic[];
  Shared& shared = *reinterpret_cast<Shared*>(dynamic);
  if (threadIdx.x == 0) {
    for (uint64_t& full : shared.full) BarrierInit(SharedAddress(&full), 1);
    BarrierInitFence();
  }
  __syncthreads();
  GridDependencyWait();
  GridDependencyLaunch();
  const int group = p.rule.heads.value_heads / p.rule.heads.key_heads;
  const int pieces = (group + heads_per_block - 1) / heads_per_block;
  const int piece = static_cast<int>(blockIdx.y) % pieces;
  const int key_head = static_cast<int>(blockIdx.y) / pieces;
  const Work work = {blockIdx.x, key_head, key_head * group + piece * heads_per_block,
                     min(heads_per_block, group - piece * heads_per_block),
                     TileOf(p.rule.rows, p.chunks, blockIdx.x)};
  if (p.rule.rows.slot(work.tile.row) < 0) {
    StoreZeros<Out>(p, work);
    return;
  }
  const int units = 2 * work.heads;
  if (threadIdx.x == 0) {
    for (int n = 0; n < kStages; ++n) Produce(p, work, n, shared);
  }
  const int64_t key_offset = int64_t{key_head} * kSm90Dim;
  const uint32_t q_rows = SharedAddress(shared.q);
  const uint32_t k_rows = SharedAddress(shared.k);
  LoadRows<kThreads>(
      q_rows, static_cast<const T*>(p.rule.q) + work.tile.begin * p.rule.q_stride + key_offset,
      p.rule.q_stride, work.tile.length);
  LoadRows<kThreads>(
      k_rows, static_cast<const T*>(p.rule.k) + work.tile.begin * p.rule.k_stride + key_offset,
      p.rule.k_stride, work.tile.length);
  CopyAsyncWait();
  __syncthreads();
  const bool k_scales = p.rule.qk_l2norm && std::is_same_v<T, __half>;
  if (threadIdx.x < kChunk) {
    if (!p.rule.qk_l2norm) shared.q_scale[threadIdx.x] = 1.0f;
    if (!k_scales) shared.k_scale[threadIdx.x] = 1.0f;
  }
  if (p.rule.qk_l2norm) RowScales<T>(q_rows, threadIdx.x / 32 * kTileDim, shared.q_scale);
  if (k_scales) RowScales<T>(k_rows, threadIdx.x / 32 * kTileDim, shared.k_scale);
  LeftTile q[kDimTiles];
  TileSum qk[kBlocks];
  MultiplyQueries<T>(shared, q, qk);
  __syncthreads();

  LeftTile scores[kBlocks];
  for (int n = 0; n < units; ++n) {
    const Stage& stage = shared.stages[n % kStages];
    BarrierWait(SharedAddress(&shared.full[n % kStages]), n / kStages & 1);
    if (n % 2 == 0) Scores<T>(qk, stage.gamma, shared, scores);
    TileSum o[kHalfTiles];
    Output<T>(stage, q, scores, p.rule.scale, shared, o);
    __syncthreads();
    if (threadIdx.x == 0 && n + kStages < units) Produce(p, work, n + kStages, shared);
    StoreOutput<Out>(p, work, n, o, shared);
  }
}

template <typename T, typename Out>
cudaError_t Launch(const ChunkSm90Params& p, cudaStream_t stream) {
  // A block takes a whole group of value heads, which share q kᵀ, unless that leaves SMs idle.
  constexpr int64_t kEnoughBlocks = 512;
  const int group = p.rule.heads.value_heads / p.rule.heads.key_heads;
  int per_block = group;
  const auto pieces = [&] { return (group + per_block - 1) / per_block; };
  while (per_block > 1 && p.chunks.count * p.rule.heads.key_heads * pieces() < kEnoughBlocks) {
    per_block = (per_block + 1) / 2;
  }
  const dim3 grid(static_cast<unsigned>(p.chunks.count), p.rule.heads.key_heads * pieces());
  return LaunchDependent(OutputKernel<T, Out>, grid, kThreads, sizeof(Shared), stream, p,
                         per_block);
}

template <typename T>
cudaError_t LaunchType(const ChunkSm90Params& p, cudaStream_t stream) {
  return p.rule.o_type == DType::kFp32 ? Launch<T, float>(p, stream) : Launch<T, T>(p, stream);
}

}  // namespace

cudaError_t ChunkOSm90(const ChunkSm90Params& p, cudaStream_t stream) {
  return p.rule.io == DType::kFp16 ? LaunchType<__half>(p, stream)
                                   : LaunchType<__nv_bfloat16>(p, stream);
}

}  // namespace gdn::cuda
