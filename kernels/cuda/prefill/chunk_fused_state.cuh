// The warpgroups that take a row's state from chunk to chunk in the fused kernel (chunk_sm90.h).
#pragma once

#include "kernels/cuda/prefill/chunk_fused_copies.cuh"
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
using TokenScales = float4[kTokenTiles];  // factors of a thread's columns

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

// Half the tokens' factors, before the products that they scale are waited for.
__device__ __forceinline__ void TakeScales(const TokenFactors& factors, int half,
                                           TokenScales& scales) {
#pragma unroll
  for (int t = 0; t < kTokenTiles; ++t) scales[t] = TileOf(factors, half * kTokenTiles + t);
}

// y = beta * (v + for_y * u), for the warp's values of half the tokens, in the place of v.
template <typename T>
__device__ __forceinline__ void MakeY(const TokenScales& for_y, const TokenScales& beta,
                                      const Tokens& u, TokenOperand& y) {
#pragma unroll
  for (int t = 0; t < kTokenTiles; ++t) {
    const TileSum sum = AddScaled(UnpackLeft<T>({y[t]}), SumOf(u, t), for_y[t]);
    y[t] = PackLeft<T>(Scaled(sum, beta[t])).r;
  }
  WarpgroupTouch(y);
}

// W of half the tokens: for the output as it is, and for the state.
struct Written {
  TokenOperand for_o;
  TokenOperand for_s;
};

template <typename T>
__device__ __forceinline__ void PackWritten(const TokenScales& for_s, const Tokens& w,
                                            Written& written) {
#pragma unroll
  for (int t = 0; t < kTokenTiles; ++t) {
    written.for_o[t] = PackLeft<T>(SumOf(w, t)).r;
    written.for_s[t] = PackLeft<T>(Scaled(SumOf(w, t), for_s[t])).r;
  }
  WarpgroupTouch(written.for_o);
  WarpgroupTouch(written.for_s);
}

// o *= for_o, for half of the tokens.
__device__ __forceinline__ void ScaleOutput(const TokenScales& for_o, Tokens& o) {
#pragma unroll
  for (int t = 0; t < kTokenTiles; ++t) SetSum(o, t, Scaled(SumOf(o, t), for_o[t]));
  WarpgroupTouch(o);
}

// Sums of half the tokens to the values' place.
template <typename T>
__device__ __forceinline__ void PutOutput(const Tokens& o, int half, const uint4* place) {
  const PanelLane panels(SharedAddress(place));
#pragma unroll
  for (int t = 0; t < kTokenTiles; ++t) {
    StoreMatricesTransposed(
        PanelLane::At(panels.straight, half * kTokens + t * kTileDim, ValueTile()),
        PackLeft<T>(SumOf(o, t)).r);
  }
}

// By a lane of each warp, for all of it.
__device__ __forceinline__ void WarpArrive(uint64_t& barrier) {
  __syncwarp();
  if (threadIdx.x % 32 == 0) BarrierArrive(SharedAddress(&barrier));
}

// What a warpgroup does about the chunk before, if any, while the products of the one at hand are
// made.
template <typename T>
class Before {
 public:
  // Of the n-th chunk.
  __device__ Before(const ChunkSm90Params& p, const Tensors& tensors, Shared& shared, unsigned n)
      : p_(p), tensors_(tensors), shared_(shared), n_(n) {}

  // Its half of the output leaves the values' place.
  __device__ __forceinline__ void StoreOutput() const {
    if (n_ == 0) return;
    AsyncProxyFence();
    NamedBarrier(1 + half(), kGroupThreads);
    const Place& at = shared_.place(n_ - 1);
    const uint4* v = shared_.maker(n_ - 1).v;
    if (at.length < kChunk) return StoreRows(at, v + half() * kPanelPieces);
    if (stores()) fused::StoreOutput(tensors_, at, half(), v);
  }

  // It has: the maker may overwrite all of the chunk. Each thread says so of what it has read.
  __device__ __forceinline__ void LetGo() const {
    if (n_ == 0) return;
    if (stores()) StoreBulkWaitRead();
    BarrierArrive(SharedAddress(&shared_.used[(n_ - 1) % kMakers]));
  }

 private:
  static __device__ int half() { return static_cast<int>(threadIdx.x / kGroupThreads); }
  static __device__ bool stores() { return threadIdx.x % kGroupThreads == 0; }

  // Of a chunk of less than 64 tokens: what lies beyond is the next row's.
  __device__ __forceinline__ void StoreRows(const Place& at, const uint4* panel) const {
    constexpr int kPieces = kPanelPieces / kChunk;  // of a row
    const int piece = static_cast<int>(threadIdx.x % kPieces);
    const int64_t stride = p_.rule.o_stride;
    T* to =
        static_cast<T*>(p_.rule.o) + at.token * stride + PanelColumn(at.head, half()) + piece * 8;
#pragma unroll 1
    for (int row = static_cast<int>(threadIdx.x % kGroupThreads / kPieces); row < at.length;
         row += kGroupThreads / kPieces) {
      *reinterpret_cast<uint4*>(to + row * stride) = panel[PanelPiece(row, piece)];
    }
    AsyncProxyFence();
  }

  const ChunkSm90Params& p_;
  const Tensors& tensors_;
  Shared& shared_;
  unsigned n_;
};

// S kᵀ and from it W; `left` is S, and s decays meanwhile.
template <typename T>
__device__ __forceinline__ void Write(const Maker& maker, uint64_t keys, uint32_t zero,
                                      const Before<T>& before, State& s, Operand& left,
                                      Written (&written)[2]) {
  const uint64_t t = RowsAreN(SharedAddress(maker.t));
  TokenOperand y0, y1;
  {
    Tokens u0, u1;
    WarpgroupTouch(left);
    WarpgroupFence();
    MultiplyState<T>(left, keys, u0);
    MultiplyState<T>(left, keys + kHalfRows, u1);
    before.StoreOutput();
    TakeValues(maker, 0, y0);
    TakeValues(maker, 1, y1);
    const float decay = maker.factors.decay;
    if (decay != 1.0f) {  // as a branch: the assembler would put it behind the wait otherwise
#pragma unroll
      for (float& e : s) e *= decay;
    }
    WarpgroupTouch(s);
    TokenScales for_y0, for_y1;
    TakeScales(maker.factors.of[kForY], 0, for_y0);
    TakeScales(maker.factors.of[kForY], 1, for_y1);
    WarpgroupWait();
    WarpgroupTouch(u0);
    WarpgroupTouch(u1);
    TokenScales beta0, beta1;
    TakeScales(maker.factors.of[kBeta], 0, beta0);
    TakeScales(maker.factors.of[kBeta], 1, beta1);
    MakeY<T>(for_y0, beta0, u0, y0);
    MakeY<T>(for_y1, beta1, u1, y1);
  }
  Tokens w0, w1;
  BeginAfter(y1, zero, y0[0]);
  WarpgroupTouch(y0);
  WarpgroupFence();
  MultiplyTokens<T, false>(y0, t, w0);
  MultiplyTokens<T, false>(y0, t + kHalfRows, w1);
  MultiplyTokens<T>(y1, t + kHalfRows + kHalfColumns, w1);
  WarpgroupCommit();
  before.LetGo();
  TokenScales for_s0, for_s1;
  TakeScales(maker.factors.of[kForS], 0, for_s0);
  TakeScales(maker.factors.of[kForS], 1, for_s1);
  WarpgroupWait();
  WarpgroupTouch(w0);
  WarpgroupTouch(w1);
  PackWritten<T>(for_s0, w0, written[0]);
  PackWritten<T>(for_s1, w1, written[1]);
}

// S as a left operand.
template <typename T>
__device__ __forceinline__ void PackState(const State& s, Operand& left) {
#pragma unroll
  for (int c = 0; c < kDimTiles; ++c) left[c] = PackLeft<T>(SumOf(s, c)).r;
}

// One chunk, five products:
//   U = S kᵀ;  W = Y Tᵀ with Y = beta * (v + for_y * U);  S += (for_s * W) k;
//   O = S qᵀ of the S before;  O = for_o * O + W Rᵀ
// all transposed, so that S, Y and W keep to registers; `left` is S as an operand, before and, but
// for the last chunk, after. O is left in the values' place.
template <typename T>
__device__ __forceinline__ void Advance(const Maker& maker, int buffer, int length, bool last,
                                        const Before<T>& before, uint64_t& read, State& s,
                                        Operand& left) {
  const uint32_t zero = static_cast<uint32_t>(length) >> 31;
  const uint32_t k = SharedAddress(maker.k[buffer]);
  const uint64_t queries = RowsAreN(SharedAddress(maker.q[buffer]));
  const uint64_t r = RowsAreN(SharedAddress(maker.r));
  Written written[2];
  Write<T>(maker, RowsAreN(k), zero, before, s, left, written);

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
  TokenScales for_o;
  TakeScales(maker.factors.of[kForO], 0, for_o);
  WarpgroupWait();
  WarpgroupTouch(s);
  WarpgroupTouch(o0);

  ScaleOutput(for_o, o0);
  BeginAfter(o0, zero, written[0].for_o[0]);
  WarpgroupTouch(written[0].for_o);
  WarpgroupFence();
  MultiplyTokens<T>(written[0].for_o, r, o0);
  WarpgroupCommit();
  MultiplyState<T>(left, queries + kHalfRows, o1);
  TakeScales(maker.factors.of[kForO], 1, for_o);
  WarpgroupWait<1>();
  WarpgroupTouch(o0);
  PutOutput<T>(o0, 0, maker.v);
  WarpgroupWait();
  WarpgroupTouch(o1);
  WarpArrive(read);

  ScaleOutput(for_o, o1);
  BeginAfter(o1, zero, written[0].for_o[0]);
  WarpgroupTouch(written[0].for_o);
  WarpgroupFence();
  MultiplyTokens<T>(written[0].for_o, r + kHalfRows, o1);
  MultiplyTokens<T>(written[1].for_o, r + kHalfRows + kHalfColumns, o1);
  WarpgroupCommit();
  if (!last) PackState<T>(s, left);  // a branch, as above
  WarpgroupWait();
  WarpgroupTouch(o1);
  PutOutput<T>(o1, 1, maker.v);
}

// The block's chunks one after another.
template <typename T, typename S>
__device__ void Keep(const ChunkSm90Params& p, const Tensors& tensors, Shared& shared) {
  S* pool = static_cast<S*>(p.rule.ssm.data);
  State s;
  Operand left;
  unsigned n = 0;
  for (;; ++n) {
    const int which = n % kMakers;
    const int own = n / kMakers % 2;
    BarrierWait(SharedAddress(&shared.made[which]), own);
    const Place& at = shared.place(n);
    const int length = at.length;
    const bool last = at.last;
    if (length == 0) break;
    if (at.first) {
      LoadState(pool + at.state, at.restore, s);
      PackState<T>(s, left);
    }
    // The next chunk's place was there with the last chunk.
    if (last && n > 0 && threadIdx.x == 0) PrefetchState(p, shared.place(n + 1));
    Advance<T>(shared.makers[which], own, length, last, Before<T>(p, tensors, shared, n),
               shared.read[which], s, left);
    if (last && pool != nullptr) StoreState(s, pool + at.state);
  }
  const Before<T> before(p, tensors, shared, n);
  before.StoreOutput();
  before.LetGo();
}

}  // namespace gdn::cuda::fused
