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

// Half of the tokens of a left operand.
using HalfOperand = uint4[kTokenTiles];

// y = beta * (v + for_y * u), for the warp's values of half the tokens.
template <typename T>
__device__ __forceinline__ void MakeY(const Maker& maker, int half, const Tokens& u,
                                      HalfOperand& y) {
  const PanelLane v(SharedAddress(maker.v));
#pragma unroll
  for (int t = 0; t < kTokenTiles; ++t) {
    const int token = half * kTokens + t * kTileDim;
    const TileSum values =
        UnpackLeft<T>({LoadMatricesTransposed(PanelLane::At(v.straight, token, ValueTile()))});
    const TileSum sum = AddScaled(values, SumOf(u, t), ColumnsOf(maker.factors.for_y + token));
    y[t] = PackLeft<T>(Scaled(sum, ColumnsOf(maker.factors.beta + token))).r;
  }
  WarpgroupTouch(y);
}

// d += y * bᵀ, or with kAdd false d = y * bᵀ, for half of b's rows; `y` are the tokens that b's
// columns from `column` on go with.
template <typename T, bool kAdd = true>
__device__ __forceinline__ void MultiplyTokens(const HalfOperand& y, uint64_t b, int column,
                                               Tokens& d) {
  b += column / kTileDim * 2;
  WarpgroupMma<T, kAdd>(d, y[0], b);
#pragma unroll
  for (int t = 1; t < kTokenTiles; ++t) WarpgroupMma<T>(d, y[t], b + t * 2);
}
// W as operands: as it is, for the output, and for the state.
struct Written {
  HalfOperand for_o;
  HalfOperand for_s;
};

template <typename T>
__device__ __forceinline__ void PackWritten(const Maker& maker, int half, const Tokens& w,
                                            Written& written) {
#pragma unroll
  for (int t = 0; t < kTokenTiles; ++t) {
    const int token = half * kTokens + t * kTileDim;
    written.for_o[t] = PackLeft<T>(SumOf(w, t)).r;
    written.for_s[t] =
        PackLeft<T>(Scaled(SumOf(w, t), ColumnsOf(maker.factors.for_s + token))).r;
  }
  WarpgroupTouch(written.for_o);
  WarpgroupTouch(written.for_s);
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

// o *= for_o, for half of the tokens.
__device__ __forceinline__ void ScaleOutput(const Maker& maker, int half, Tokens& o) {
#pragma unroll
  for (int t = 0; t < kTokenTiles; ++t) {
    SetSum(o, t, Scaled(SumOf(o, t), ColumnsOf(maker.factors.for_o + half * kTokens + t * kTileDim)));
  }
  WarpgroupTouch(o);
}

// Lets products of `a` begin only once `before` is there: begun earlier, they would need registers
// that what makes `before` still has. `zero` is 0 and not known to be.
__device__ __forceinline__ uint32_t AnyOf(const float& e) { return __float_as_uint(e); }
__device__ __forceinline__ uint32_t AnyOf(const uint4& e) { return e.x | e.y | e.z | e.w; }
template <typename E, int N>
__device__ __forceinline__ void BeginAfter(const E (&before)[N], uint32_t zero, uint4& a) {
  uint32_t any = 0;
#pragma unroll
  for (const E& e : before) any |= AnyOf(e);
  a.x |= any & zero;
}

// One chunk, five products:
//   U = S kᵀ;  W = Y Tᵀ with Y = beta * (v + for_y * U);  S += (for_s * W) k;
//   O = S qᵀ of the S before;  O = for_o * O + W Rᵀ
// all transposed, so that S, Y and W keep to registers. T and R are triangular, so the first half of
// the tokens needs nothing of the second.
template <typename T>
__device__ __forceinline__ void Advance(const ChunkSm90Params& params, Maker& maker, int buffer,
                                        const Place& at, State& s) {
  constexpr int kHalfRows = kTokens * kPanelRowBytes / 16;
  const uint64_t keys = RowsAreN(SharedAddress(maker.k[buffer]));
  const uint64_t key_rows = RowsAreK(SharedAddress(maker.k[buffer]));
  const uint64_t queries = RowsAreN(SharedAddress(maker.q[buffer]));
  const uint64_t inverse = RowsAreN(SharedAddress(maker.t));
  const uint64_t r = RowsAreN(SharedAddress(maker.r));
  Operand left;
#pragma unroll
  for (int c = 0; c < kDimTiles; ++c) left[c] = PackLeft<T>(SumOf(s, c)).r;
  HalfOperand y0, y1;
  const uint32_t zero = static_cast<uint32_t>(at.length) >> 31;
  {
    Tokens u0, u1;
    WarpgroupTouch(left);
    WarpgroupFence();
    MultiplyState<T>(left, keys, u0);
    MultiplyState<T>(left, keys + kHalfRows, u1);
    WarpgroupWait();
    WarpgroupTouch(u0);
    WarpgroupTouch(u1);
    MakeY<T>(maker, 0, u0, y0);
    MakeY<T>(maker, 1, u1, y1);
  }
  Written written0, written1;
  {
    Tokens w0, w1;
    BeginAfter(y1, zero, y0[0]);
    WarpgroupTouch(y0);
    WarpgroupFence();
    MultiplyTokens<T, false>(y0, inverse, 0, w0);
    MultiplyTokens<T, false>(y0, inverse + kHalfRows, 0, w1);
    MultiplyTokens<T>(y1, inverse + kHalfRows, kTokens, w1);
    WarpgroupCommit();
    WarpgroupWait();
    WarpgroupTouch(w0);
    WarpgroupTouch(w1);
    PackWritten<T>(maker, 0, w0, written0);
    PackWritten<T>(maker, 1, w1, written1);
  }
  const float decay = maker.factors.decay;
#pragma unroll
  for (float& e : s) e *= decay;
  Tokens o;
  BeginAfter(s, zero, written0.for_s[0]);
  BeginAfter(written1.for_s, zero, written0.for_s[0]);
  BeginAfter(written0.for_o, zero, written0.for_s[0]);
  BeginAfter(written1.for_o, zero, written0.for_s[0]);
  WarpgroupTouch(written0.for_s);
  WarpgroupTouch(s);
  WarpgroupFence();
#pragma unroll
  for (int t = 0; t < kTokenTiles; ++t) {
    WarpgroupMma<T>(s, written0.for_s[t], key_rows + t * (kTileDim * kPanelRowBytes / 16));
  }
#pragma unroll
  for (int t = 0; t < kTokenTiles; ++t) {
    WarpgroupMma<T>(s, written1.for_s[t],
                    key_rows + (kTokenTiles + t) * (kTileDim * kPanelRowBytes / 16));
  }
  WarpgroupCommit();
  MultiplyState<T>(left, queries, o);
  WarpgroupWait();
  WarpgroupTouch(s);
  WarpgroupTouch(o);
  ScaleOutput(maker, 0, o);
  BeginAfter(o, zero, written0.for_o[0]);
  WarpgroupTouch(written0.for_o);
  WarpgroupFence();
  MultiplyTokens<T>(written0.for_o, r + 0 * kHalfRows, 0, o);
  WarpgroupCommit();
  Tokens p;
  MultiplyState<T>(left, queries + kHalfRows, p);
  WarpgroupWait<1>();
  WarpgroupTouch(o);
  StoreOutput<T>(params, o, 0, at, maker.v);
  WarpgroupWait();
  WarpgroupTouch(p);
  ScaleOutput(maker, 1, p);
  BeginAfter(p, zero, written0.for_o[0]);
  WarpgroupTouch(written0.for_o);
  WarpgroupFence();
  MultiplyTokens<T>(written0.for_o, r + 1 * kHalfRows, 0, p);
  MultiplyTokens<T>(written1.for_o, r + kHalfRows, kTokens, p);
  WarpgroupCommit();
  WarpgroupWait();
  WarpgroupTouch(p);
  StoreOutput<T>(params, p, 1, at, maker.v);
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
