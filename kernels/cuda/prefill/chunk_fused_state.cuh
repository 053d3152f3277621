// The warpgroups that take a row's state from chunk to chunk in the fused kernel (chunk_sm90.h).
#pragma once

#include "kernels/cuda/prefill/chunk_fused.cuh"
#include "kernels/cuda/prefill/chunk_fused_pool.cuh"

namespace gdn::cuda::fused {

// This warp's 16 rows of V among a token's pieces.
__device__ __forceinline__ int ValueTile() { return static_cast<int>(threadIdx.x) / 32; }

// A chunk's tokens are taken in halves of 32: registers of these find room where those of 64 do
// not, and T and R, which are triangular, have nothing of the second half for the first.
constexpr int kTokens = kChunk / 2;
using Tokens = float[kTokens / 2];  // a thread's part of the V rows x 32 tokens
constexpr int kTokenTiles = kTokens / kTileDim;
using TokenOperand = uint4[kTokenTiles];  // as a left operand

// Of right operands in shared memory, in units of a descriptor: from a half of the tokens to the
// other as rows and as columns, and from 16 rows to the next.
constexpr int kHalfRows = kTokens * kPanelRowBytes / 16;
constexpr int kHalfColumns = kTokens * 2 / 16;
constexpr int kTileRows = kTileDim * kPanelRowBytes / 16;

// d += tokens * bᵀ, or with kAdd false d = tokens * bᵀ, for 32 rows and columns of b from `b` on.
template <typename T, bool kAdd = true>
__device__ __forceinline__ void MultiplyTokens(const TokenOperand& tokens, uint64_t b, Tokens& d) {
  WarpgroupMma<T, kAdd>(d, tokens[0], b);
#pragma unroll
  for (int t = 1; t < kTokenTiles; ++t) WarpgroupMma<T>(d, tokens[t], b + t * 2);
}

// Lets products of `a` begin only once `before` is there. The assembler would begin them as soon as
// their operands are, and then has no registers for both: it gives up having products overlap at
// all (its message C7512). `zero` is 0 and not known to be.
__device__ __forceinline__ uint32_t BitsOf(float e) { return __float_as_uint(e); }
__device__ __forceinline__ uint32_t BitsOf(const uint4& e) { return e.x | e.y | e.z | e.w; }
template <typename E, int N>
__device__ __forceinline__ void BeginAfter(const E (&before)[N], uint32_t zero, uint4& a) {
  uint32_t any = 0;
#pragma unroll
  for (const E& e : before) any |= BitsOf(e);
  a.x |= any & zero;
}

// The warp's values of half the tokens.
__device__ __forceinline__ void TakeValues(const Maker& maker, int half, TokenOperand& values) {
  const PanelLane v(SharedAddress(maker.v));
#pragma unroll
  for (int t = 0; t < kTokenTiles; ++t) {
    values[t] = LoadMatricesTransposed(
        PanelLane::At(v.straight, half * kTokens + t * kTileDim, ValueTile()));
  }
}

// y = beta * (v + for_y * u), for the warp's values of half the tokens, in the place of v.
template <typename T>
__device__ __forceinline__ void MakeY(const Factors& factors, int half, const Tokens& u,
                                      TokenOperand& y) {
#pragma unroll
  for (int t = 0; t < kTokenTiles; ++t) {
    const int tile = half * kTokenTiles + t;
    const TileSum sum = AddScaled(UnpackLeft<T>({y[t]}), SumOf(u, t), TileOf(factors.for_y, tile));
    y[t] = PackLeft<T>(Scaled(sum, TileOf(factors.beta, tile))).r;
  }
  WarpgroupTouch(y);
}

// W of half the tokens: for the output as it is, and for the state.
struct Written {
  TokenOperand for_o;
  TokenOperand for_s;
};

template <typename T>
__device__ __forceinline__ void PackWritten(const Maker& maker, int half, const Tokens& w,
                                            Written& written) {
#pragma unroll
  for (int t = 0; t < kTokenTiles; ++t) {
    const float4 for_s = TileOf(maker.factors.for_s, half * kTokenTiles + t);
    written.for_o[t] = PackLeft<T>(SumOf(w, t)).r;
    written.for_s[t] = PackLeft<T>(Scaled(SumOf(w, t), for_s)).r;
  }
  WarpgroupTouch(written.for_o);
  WarpgroupTouch(written.for_s);
}

// o *= for_o, for half of the tokens.
__device__ __forceinline__ void ScaleOutput(const Maker& maker, int half, Tokens& o) {
#pragma unroll
  for (int t = 0; t < kTokenTiles; ++t) {
    SetSum(o, t, Scaled(SumOf(o, t), TileOf(maker.factors.for_o, half * kTokenTiles + t)));
  }
  WarpgroupTouch(o);
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

// S kᵀ and from it W; `left` is S, and s decays meanwhile.
template <typename T>
__device__ __forceinline__ void Write(const Maker& maker, uint64_t keys, uint32_t zero, State& s,
                                      Operand& left, Written (&written)[2]) {
  const uint64_t t = RowsAreN(SharedAddress(maker.t));
  TokenOperand y0, y1;
  {
    Tokens u0, u1;
    WarpgroupTouch(left);
    WarpgroupFence();
    MultiplyState<T>(left, keys, u0);
    MultiplyState<T>(left, keys + kHalfRows, u1);
    const float decay = maker.factors.decay;
#pragma unroll
    for (float& e : s) e *= decay;
    WarpgroupTouch(s);
    TakeValues(maker, 0, y0);
    TakeValues(maker, 1, y1);
    WarpgroupWait();
    WarpgroupTouch(u0);
    WarpgroupTouch(u1);
    MakeY<T>(maker.factors, 0, u0, y0);
    MakeY<T>(maker.factors, 1, u1, y1);
  }
  Tokens w0, w1;
  BeginAfter(y1, zero, y0[0]);
  WarpgroupTouch(y0);
  WarpgroupFence();
  MultiplyTokens<T, false>(y0, t, w0);
  MultiplyTokens<T, false>(y0, t + kHalfRows, w1);
  MultiplyTokens<T>(y1, t + kHalfRows + kHalfColumns, w1);
  WarpgroupCommit();
  WarpgroupWait();
  WarpgroupTouch(w0);
  WarpgroupTouch(w1);
  PackWritten<T>(maker, 0, w0, written[0]);
  PackWritten<T>(maker, 1, w1, written[1]);
}

// One chunk, five products:
//   U = S kᵀ;  W = Y Tᵀ with Y = beta * (v + for_y * U);  S += (for_s * W) k;
//   O = S qᵀ of the S before;  O = for_o * O + W Rᵀ
// all transposed, so that S, Y and W keep to registers.
template <typename T>
__device__ __forceinline__ void Advance(const ChunkSm90Params& params, Maker& maker, int buffer,
                                        const Place& at, State& s) {
  const uint32_t k = SharedAddress(maker.k[buffer]);
  const uint64_t queries = RowsAreN(SharedAddress(maker.q[buffer]));
  const uint64_t r = RowsAreN(SharedAddress(maker.r));
  const uint32_t zero = static_cast<uint32_t>(at.length) >> 31;
  Operand left;
#pragma unroll
  for (int c = 0; c < kDimTiles; ++c) left[c] = PackLeft<T>(SumOf(s, c)).r;
  Written written[2];
  Write<T>(maker, RowsAreN(k), zero, s, left, written);

  uint4& first = written[0].for_s[0];
  BeginAfter(written[1].for_s, zero, first);
  BeginAfter(written[0].for_o, zero, first);
  BeginAfter(written[1].for_o, zero, first);
  WarpgroupTouch(written[0].for_s);
  WarpgroupTouch(s);
  WarpgroupFence();
#pragma unroll
  for (int t = 0; t < kBlocks; ++t) {
    WarpgroupMma<T>(s, written[t / kTokenTiles].for_s[t % kTokenTiles],
                    RowsAreK(k) + t * kTileRows);
  }
  WarpgroupCommit();
  Tokens o0, o1;
  MultiplyState<T>(left, queries, o0);
  WarpgroupWait();
  WarpgroupTouch(s);
  WarpgroupTouch(o0);

  ScaleOutput(maker, 0, o0);
  BeginAfter(o0, zero, written[0].for_o[0]);
  WarpgroupTouch(written[0].for_o);
  WarpgroupFence();
  MultiplyTokens<T>(written[0].for_o, r, o0);
  WarpgroupCommit();
  MultiplyState<T>(left, queries + kHalfRows, o1);
  WarpgroupWait<1>();
  WarpgroupTouch(o0);
  StoreOutput<T>(params, o0, 0, at, maker.v);
  WarpgroupWait();
  WarpgroupTouch(o1);

  ScaleOutput(maker, 1, o1);
  BeginAfter(o1, zero, written[0].for_o[0]);
  WarpgroupTouch(written[0].for_o);
  WarpgroupFence();
  MultiplyTokens<T>(written[0].for_o, r + kHalfRows, o1);
  MultiplyTokens<T>(written[1].for_o, r + kHalfRows + kHalfColumns, o1);
  WarpgroupCommit();
  WarpgroupWait();
  WarpgroupTouch(o1);
  StoreOutput<T>(params, o1, 1, at, maker.v);
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
    if (at.first) LoadState(pool + at.state, threadIdx.x, at.restore, s);
    // The next chunk's place was there with the last chunk.
    if (at.last && n > 0 && threadIdx.x == 0) {
      PrefetchState(p, shared.makers[(n + 1) % kMakers].places[(n + 1) / kMakers % kPlaces]);
    }
    Advance<T>(p, maker, buffer, at, s);
    if (at.last && pool != nullptr) StoreState(s, threadIdx.x, pool + at.state);
    __syncwarp();
    if (threadIdx.x % 32 == 0) BarrierArrive(SharedAddress(&shared.used[n % kMakers]));
  }
}

}  // namespace gdn::cuda::fused
