// The warpgroups that take a row's state from chunk to chunk in the fused kernel (chunk_sm90.h).
#pragma once

#include "kernels/cuda/prefill/chunk_fused.cuh"
#include "kernels/cuda/prefill/chunk_state.cuh"

namespace gdn::cuda::fused {

// This warp's 16 rows of V among a token's pieces.
__device__ __forceinline__ int ValueTile() { return static_cast<int>(threadIdx.x) / 32; }

// A chunk's tokens are taken in halves, which leaves room for the registers of both.
constexpr int kTokens = kChunk / 2;
using Tokens = float[kTokens / 2];  // a thread's part of the V rows x 32 tokens
constexpr int kTokenTiles = kTokens / kTileDim;

// y = v + for_y * u, for the warp's values of half the tokens.
template <typename T>
__device__ __forceinline__ void MakeY(const Maker& maker, int half, const Tokens& u,
                                      uint4 (&y)[kTokenTiles]) {
  const PanelLane v(SharedAddress(maker.v));
#pragma unroll
  for (int t = 0; t < kTokenTiles; ++t) {
    const int token = half * kTokens + t * kTileDim;
    const TileSum values =
        UnpackLeft<T>({LoadMatricesTransposed(PanelLane::At(v.straight, token, ValueTile()))});
    y[t] = PackLeft<T>(AddScaled(values, SumOf(u, t), ColumnsOf(maker.factors.for_y + token))).r;
  }
}

// Sums of half the tokens to where they belong, by way of the values' place.
template <typename T>
__device__ __forceinline__ void StoreOutput(const ChunkSm90Params& p, const Tokens& o, int half,
                                            const Place& at, uint4* place) {
  const int lane = threadIdx.x % 32;
  const int64_t stride = p.rule.o_stride;
  T* to = static_cast<T*>(p.rule.o) + at.token * stride + int64_t{at.head} * kSm90Dim;
  const PanelLane panels(SharedAddress(place));
#pragma unroll
  for (int t = 0; t < kTokenTiles; ++t) {
    StoreMatricesTransposed(
        PanelLane::At(panels.straight, half * kTokens + t * kTileDim, ValueTile()),
        PackLeft<T>(SumOf(o, t)).r);
  }
  __syncwarp();
  // Two lanes a token; eight lanes' tokens lie in different banks.
  const int first = half * kTokens + lane / 2 % 4 * 2 + lane / 8 % 2 + lane / 16 * 8;
  const int piece = 2 * ValueTile() + lane % 2;
  const uint4* from = place + PanelPiece(first, piece);
  to += first * stride + piece * 8;
#pragma unroll
  for (int t = 0; t < kTokenTiles; ++t) {
    const uint4 x = from[t * kTileDim * (kPanelRowBytes / 16)];
    if (first + t * kTileDim < at.length) {
      *reinterpret_cast<uint4*>(to + t * kTileDim * stride) = x;
    }
  }
}

// One chunk, four products:
//   U = S kᵀ;  S += Y X with Y = v + for_y * U;  O = S qᵀ of the S before;  O = for_o * O + Y Pᵀ
// all transposed, so that S and Y keep to registers.
template <typename T>
__device__ __forceinline__ void Advance(const ChunkSm90Params& params, Maker& maker, int buffer,
                                        const Place& at, State& s) {
  constexpr int kHalfRows = kTokens * kPanelRowBytes / 16;
  const uint64_t keys = RowsAreN(SharedAddress(maker.k[buffer]));
  const uint64_t queries = RowsAreN(SharedAddress(maker.q[buffer]));
  const uint64_t x = RowsAreK(SharedAddress(maker.x));
  const uint64_t p = RowsAreN(SharedAddress(maker.p));
  Operand left;
#pragma unroll
  for (int c = 0; c < kDimTiles; ++c) left[c] = PackLeft<T>(SumOf(s, c)).r;
  const float decay = maker.factors.decay;
#pragma unroll
  for (float& e : s) e *= decay;
  WarpgroupTouch(s);
  uint4 y[2][kTokenTiles];
  {
    Tokens u0, u1;
    WarpgroupTouch(left);
    WarpgroupFence();
    MultiplyState<T>(left, keys, u0);
    MultiplyState<T>(left, keys + kHalfRows, u1);
    const auto add = [&](int half) {
      WarpgroupTouch(y[half]);
      WarpgroupFence();
#pragma unroll
      for (int t = 0; t < kTokenTiles; ++t) {
        WarpgroupMma<T>(s, y[half][t],
                        x + (half * kTokenTiles + t) * (kTileDim * kPanelRowBytes / 16));
      }
      WarpgroupCommit();
    };
    WarpgroupWait<1>();
    WarpgroupTouch(u0);
    MakeY<T>(maker, 0, u0, y[0]);
    add(0);
    WarpgroupWait<1>();
    WarpgroupTouch(u1);
    MakeY<T>(maker, 1, u1, y[1]);
    add(1);
  }
  const auto finish = [&](int half, Tokens& o) {
#pragma unroll
    for (int t = 0; t < kTokenTiles; ++t) {
      const float* factors = maker.factors.for_o + half * kTokens + t * kTileDim;
      SetSum(o, t, Scaled(SumOf(o, t), ColumnsOf(factors)));
    }
    WarpgroupTouch(o);
    WarpgroupFence();
#pragma unroll
    for (int t = 0; t < kBlocks; ++t) {
      WarpgroupMma<T>(o, y[t / kTokenTiles][t % kTokenTiles], p + half * kHalfRows + t * 2);
    }
    WarpgroupCommit();
    WarpgroupWait();
    WarpgroupTouch(o);
    StoreOutput<T>(params, o, half, at, maker.v);
  };
  {
    Tokens o;
    MultiplyState<T>(left, queries, o);
    WarpgroupWait();
    WarpgroupTouch(s);
    WarpgroupTouch(o);
    finish(0, o);
  }
  Tokens o;
  WarpgroupFence();
  MultiplyState<T>(left, queries + kHalfRows, o);
  WarpgroupWait();
  WarpgroupTouch(o);
  finish(1, o);
}

// The block's chunks one after another.
template <typename T, typename S>
__device__ void Keep(const ChunkSm90Params& p, Shared& shared) {
  S* pool = static_cast<S*>(p.rule.ssm.data);
  State s;
  for (unsigned n = 0;; ++n) {
    Maker& maker = shared.makers[n % kMakers];
    const int buffer = n / kMakers % 2;
    BarrierWait(SharedAddress(&shared.made[n % kMakers]), buffer);
    const Place& at = maker.places[n / kMakers % kPlaces];
    if (at.length == 0) break;
    const int row = ValueTile() * kTileDim;
    if (at.first) LoadState(pool + at.state + row * kSm90Dim, at.restore, s);
    Advance<T>(p, maker, buffer, at, s);
    if (at.last && pool != nullptr) StoreState(s, pool + at.state + row * kSm90Dim);
    __syncwarp();
    if (threadIdx.x % 32 == 0) BarrierArrive(SharedAddress(&shared.used[n % kMakers]));
  }
}

}  // namespace gdn::cuda::fused
