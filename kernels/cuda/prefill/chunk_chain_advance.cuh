// The warps that advance a state from chunk to chunk (chunk_sm90.h), and what both kernels that
// have such warps share.
#pragma once

#include "kernels/cuda/device/warpgroup.cuh"
#include "kernels/cuda/prefill/chunk_chain_shared.cuh"
#include "kernels/cuda/prefill/chunk_state.cuh"

namespace gdn::cuda::chain {

using Tokens = float[kChunk / 2];  // a thread's part of kRows x 64 tokens, transposed

// Calls f(row, column, first of the pair of sums) for the lane's pairs of the warp's 16 rows.
template <typename F>
__device__ __forceinline__ void ForEachPair(State& s, F&& f) {
  const int row = threadIdx.x % 32 / 4;
  const int column = threadIdx.x % 4 * 2;
#pragma unroll
  for (int c = 0; c < 2 * kDimTiles; ++c) {
    f(row, column + c * 8, s + 4 * c);
    f(row + 8, column + c * 8, s + 4 * c + 2);
  }
}

// The warp's rows in memory, from `rows` on.
template <typename S>
__device__ __forceinline__ void LoadState(const S* rows, State& s) {
  ForEachPair(s, [&](int row, int column, float* pair) {
    const float2 x = LoadPair(rows + row * kSm90Dim + column);
    pair[0] = x.x;
    pair[1] = x.y;
  });
}
template <typename S>
__device__ __forceinline__ void StoreState(State& s, S* rows, int stride = kSm90Dim) {
  ForEachPair(s, [&](int row, int column, const float* pair) {
    StorePair(rows + row * stride + column, pair[0], pair[1]);
  });
}

// The first of the warp's rows of a head, of 128: with output a block has half of them.
template <typename Form>
__device__ __forceinline__ int FirstRow() {
  const int half =
      Form::kOutput ? static_cast<int>(ClusterRank()) : static_cast<int>(threadIdx.x / 128);
  return half * kRows + threadIdx.x % 128 / 32 * kTileDim;
}

// The state that a segment of a row begins with, from the warp's first row on.
template <typename Form>
__device__ __forceinline__ float* StartRows(const ChunkSm90Params& p, const Work& work,
                                            int segment) {
  const int64_t record = int64_t{segment} * p.rule.heads.value_heads + work.head;
  return p.workspace.starts + (record * kSm90Dim + FirstRow<Form>()) * kSm90Dim;
}

__device__ __forceinline__ int Warpgroup() {
  return __shfl_sync(~0u, static_cast<int>(threadIdx.x / 128), 0);  // uniform
}

// What the lane's tokens are multiplied by. Loaded before a wait, they are there after it.
struct Factors {
  float2 pairs[kChunk / 8];

  explicit __device__ Factors(const float* from) {
#pragma unroll
    for (int j = 0; j < kChunk / 8; ++j) {
      pairs[j] = reinterpret_cast<const float2*>(from)[j * 4 + threadIdx.x % 4];
    }
  }

  __device__ __forceinline__ float of(int e) const {
    return e % 2 == 0 ? pairs[e / 4].x : pairs[e / 4].y;
  }
  // Multiplies each token's sums by its factor.
  __device__ __forceinline__ void Scale(Tokens& d) const {
#pragma unroll
    for (int e = 0; e < kChunk / 2; ++e) d[e] *= of(e);
  }
  // to += factor * d
  __device__ __forceinline__ void AddScaled(const Tokens& d, Tokens& to) const {
#pragma unroll
    for (int e = 0; e < kChunk / 2; ++e) to[e] = fmaf(of(e), d[e], to[e]);
  }
};

// Where this lane loads and stores eight of a token's values, of 16 bits, among the warp's rows.
__device__ __forceinline__ uint32_t ValueAddress(const unsigned char* tokens) {
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x % 128 / 32;
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
__device__ __forceinline__ void Release(const uint64_t* empty) {
  const uint32_t barrier = SharedAddress(empty);
  BarrierArrive(barrier);
  __syncwarp();
  if (threadIdx.x % 32 == 0) BarrierArrivePeer(PeerAddress(barrier, ClusterRank() ^ 1));
}

// A row's chunks. Each has four products one after another, while the threads do what lies between:
//   U = S kᵀ;  O = S qᵀ;  S += Y X with Y = v + for_y * U;  O = for_o * O + Y Pᵀ
// all transposed, so that S and Y keep to registers. U of the next chunk is begun before the end of
// one; of the last chunk it is of whatever lies there, and of no use. Without output O is left out,
// and without values v is zero.
template <typename T, typename Form>
__device__ __forceinline__ void AdvanceRow(int chunks, bool values, Turn<Form::kStages>& turn,
                                           Turn<kOutBuffers<typename Form::Out>>& o_turn,
                                           Shared<Form>& shared, State& s) {
  using Out = typename Form::Out;
  auto& barriers = shared.barriers;
  const int warpgroup = Form::kWarpgroups == 1 ? 0 : Warpgroup();
  Operand left;
  Tokens u;
  const auto begin_next = [&](const auto& stage, bool any) {
#pragma unroll
    for (int c = 0; c < kDimTiles; ++c) left[c] = PackLeft<T>(SumOf(s, c)).r;
    WarpgroupTouch(left);
    WarpgroupFence();
    MultiplyState<T>(left, RowsAreN(SharedAddress(stage.k)), u);
    const float decay = any ? stage.factors.decay : 1.0f;
#pragma unroll
    for (int e = 0; e < kSm90Dim / 2; ++e) s[e] *= decay;
  };
  BarrierWait(SharedAddress(&barriers.begin_full[turn.at]), turn.parity);
  begin_next(shared.stages[turn.at], true);
#pragma unroll 1
  for (int n = 0; n < chunks; ++n) {
    auto& stage = shared.stages[turn.at];
    const int current = turn.at;
    Tokens v = {};
    if (values) UnpackValues<T>(stage.v[warpgroup], v);
    const Factors for_y(stage.factors.for_y);
    BarrierWait(SharedAddress(&barriers.end_full[current]), turn.parity);
    turn.Next();
    WarpgroupWait();
    WarpgroupTouch(u);

    Tokens o;
    if constexpr (Form::kOutput) {
      WarpgroupFence();
      MultiplyState<T>(left, RowsAreN(SharedAddress(stage.q)), o);
    }
    for_y.AddScaled(u, v);
    uint4 y[kBlocks];
#pragma unroll
    for (int t = 0; t < kBlocks; ++t) y[t] = PackLeft<T>(SumOf(v, t)).r;
    const uint64_t x = RowsAreK(SharedAddress(stage.x));
    WarpgroupTouch(y);
    WarpgroupTouch(s);
    WarpgroupFence();
#pragma unroll
    for (int t = 0; t < kBlocks; ++t) WarpgroupMma<T>(s, y[t], x + t * (kTileDim * 128 / 16));
    WarpgroupCommit();
    Release(&barriers.begin_empty[current]);

    if constexpr (Form::kOutput) {
      const Factors for_o(stage.factors.for_o);
      WarpgroupWait<1>();
      WarpgroupTouch(o);
      for_o.Scale(o);
      const uint64_t p = RowsAreN(SharedAddress(stage.p));
      WarpgroupTouch(o);
      WarpgroupFence();
#pragma unroll
      for (int t = 0; t < kBlocks; ++t) WarpgroupMma<T>(o, y[t], p + t * 2);
      WarpgroupCommit();
    }
    const bool more = n + 1 < chunks;
    if (more) BarrierWait(SharedAddress(&barriers.begin_full[turn.at]), turn.parity);
    WarpgroupWait<Form::kOutput ? 1 : 0>();
    WarpgroupTouch(s);
    begin_next(shared.stages[turn.at], more);

    if constexpr (Form::kOutput) {
      WarpgroupWait<1>();
      WarpgroupTouch(o);
    }
    Release(&barriers.end_empty[current]);
    if constexpr (Form::kOutput) {
      if (o_turn.again) {
        BarrierWait(SharedAddress(&barriers.o_empty[o_turn.at]), o_turn.parity ^ 1);
      }
      StoreOutput<Out>(o, shared.o + o_turn.at * kChunk * kOutStride<Out>);
      BarrierArrive(SharedAddress(&barriers.o_full[o_turn.at]));
      o_turn.Next();
    }
  }
  WarpgroupWait();
  WarpgroupTouch(u);
}

template <typename Form>
__device__ void InitBarriers(Shared<Form>& shared) {
  constexpr unsigned kOfBoth = Form::kWarps * 32 + Form::kWarps;
  const auto init = [](auto& of_stages, unsigned arrivals) {
    for (uint64_t& barrier : of_stages) BarrierInit(SharedAddress(&barrier), arrivals);
  };
  auto& barriers = shared.barriers;
  init(barriers.begin_full, 1 + 2 * 32);
  init(barriers.begin_empty, kOfBoth);
  init(barriers.end_full, Form::kOutput ? 1 + 32 : 1);
  init(barriers.end_empty, kOfBoth);
  init(barriers.o_full, Form::kWarps * 32);
  init(barriers.o_empty, 32);
  BarrierInitFence();
}

}  // namespace gdn::cuda::chain
