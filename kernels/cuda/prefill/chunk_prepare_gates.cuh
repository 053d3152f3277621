// What prepare multiplies the tokens of a chunk by: norms, beta and decays.
#pragma once

#include <type_traits>

#include "kernels/cuda/prefill/chunk_items.cuh"
#include "kernels/cuda/prefill/chunk_prepare_shared.cuh"

namespace gdn::cuda::prepare {

constexpr float kLog2E = 1.4426950408889634f;

// Of a token and head: a warp has its 16 tokens, in its halves of two heads.
struct TokenDecays {
  float begin;   // exp(gamma_i)
  float column;  // exp(gamma_e - gamma_i), e the last of the 16
  float end;     // exp(gamma_last - gamma_i)
};

// Leaves gamma of the warp's tokens in shared memory.
__device__ __forceinline__ TokenDecays SumGates(int warp, const Gates& gates, Shared& shared) {
  const int lane = threadIdx.x % 32;
  const int head = lane / 16;
  const int four = lane % 16;
  float4 g = reinterpret_cast<const float4*>(gates.g[head])[four];
  g.y += g.x;
  g.z += g.y;
  g.w += g.z;
  float sum = g.w;
#pragma unroll
  for (int step = 1; step < 16; step *= 2) {
    const float below = __shfl_up_sync(~0u, sum, step, 16);
    if (four >= step) sum += below;
  }
  const float last = __shfl_sync(~0u, sum, 15, 16) * kLog2E;
  float before = __shfl_up_sync(~0u, sum, 1, 16);
  if (four == 0) before = 0.0f;
  if (four / 4 == warp) {
    reinterpret_cast<float4*>(shared.gamma[head])[four] = {
        (before + g.x) * kLog2E, (before + g.y) * kLog2E, (before + g.z) * kLog2E,
        (before + g.w) * kLog2E};
  }
  __syncwarp();
  const float* own = shared.gamma[head] + warp * kTileDim;
  const float gamma = own[lane % kTileDim];
  return {Exp2(gamma), Exp2(own[kTileDim - 1] - gamma), Exp2(last - gamma)};
}

// The product of the lane's token's row (16 tokens a warp) with itself, from the diagonal's tile.
__device__ __forceinline__ float SquareOf(const TileSum& products) {
  const int lane = threadIdx.x % 32;
  const bool odd = lane / 4 % 2 != 0;
  const int owner = lane % 8 * 4 + lane % 8 / 2;
  const float top = __shfl_sync(~0u, odd ? products.left[1] : products.left[0], owner);
  const float bottom = __shfl_sync(~0u, odd ? products.right[3] : products.right[2], owner);
  return lane % kTileDim < 8 ? top : bottom;
}

__device__ __forceinline__ float InverseNorm(const ChunkSm90Params& p, float square) {
  return p.rule.qk_l2norm ? InverseRoot(square + kL2NormEps) : 1.0f;
}

// Leaves the factors of the warp's keys in shared memory and what the chain needs of them in the
// workspace. kk are the products of its rows with themselves; keys of fp16 are normalised already.
template <typename T>
__device__ __forceinline__ void StoreKeyFactors(const ChunkSm90Params& p, const Item& item,
                                                int warp, const TokenDecays& decays,
                                                const TileSum& kk, Shared& shared) {
  const int lane = threadIdx.x % 32;
  const int head = lane / kTileDim;
  const int token = warp * kTileDim + lane % kTileDim;
  const float n = std::is_same_v<T, __half> ? 1.0f : InverseNorm(p, SquareOf(kk));
  if (head == 0) shared.k_norm[token] = n;
  shared.column[head][token] = n * decays.column;
  shared.decay[head][token] = n * decays.end;
  if (head >= item.heads) return;
  ChunkFactors& factors = p.workspace.factors[item.record(p, head)];
  factors.for_y[token] = -decays.begin * n;
  if (token == kChunk - 1) factors.decay = decays.begin;
}

// The same of its queries.
__device__ __forceinline__ void StoreQueryFactors(const ChunkSm90Params& p, const Item& item,
                                                  int warp, const TokenDecays& decays,
                                                  const TileSum& qq, Shared& shared) {
  const int lane = threadIdx.x % 32;
  const int head = lane / kTileDim;
  const int token = warp * kTileDim + lane % kTileDim;
  const float q_scale = p.rule.scale * InverseNorm(p, SquareOf(qq));
  if (head == 0) shared.q_scale[token] = q_scale;
  if (head >= item.heads) return;
  p.workspace.factors[item.record(p, head)].for_o[token] = decays.begin * q_scale;
}

__device__ __forceinline__ TileSum ScaleColumns(const TileSum& m, const float* factors) {
  const float2 x = reinterpret_cast<const float2*>(factors)[threadIdx.x % 4];
  const float2 y = reinterpret_cast<const float2*>(factors)[threadIdx.x % 4 + 4];
  return {{m.left[0] * x.x, m.left[1] * x.y, m.left[2] * x.x, m.left[3] * x.y},
          {m.right[0] * y.x, m.right[1] * y.y, m.right[2] * y.x, m.right[3] * y.y}};
}

__device__ __forceinline__ TileSum ScaleRows(const TileSum& m, float2 rows) {
  return {{m.left[0] * rows.x, m.left[1] * rows.x, m.left[2] * rows.y, m.left[3] * rows.y},
          {m.right[0] * rows.x, m.right[1] * rows.x, m.right[2] * rows.y, m.right[3] * rows.y}};
}

// factors of the lane's rows i and i + 8 among the warp's.
__device__ __forceinline__ float2 RowsOf(const float* factors, int warp) {
  const float* rows = factors + warp * kTileDim + threadIdx.x % 32 / 4;
  return {rows[0], rows[8]};
}

// Multiplies sums of the warp's rows i by row_i * n_j * exp(gamma_i - gamma_j), in two steps where
// there are tokens between: no exponent is positive.
class Decay {
 public:
  __device__ Decay(const Shared& shared, int head, int warp, float2 rows)
      : gamma_(shared.gamma[head]),
        column_(shared.column[head]),
        norm_(shared.k_norm),
        first_(warp * kTileDim),
        rows_(rows),
        row_gamma_(RowsOf(gamma_, warp)) {}

  // The tile of columns 16j.., left of the diagonal's.
  __device__ __forceinline__ TileSum Left(const TileSum& d, int j) const {
    const float end = gamma_[j * kTileDim + kTileDim - 1];
    return ScaleRows(ScaleColumns(d, column_ + j * kTileDim),
                     {rows_.x * Exp2(row_gamma_.x - end), rows_.y * Exp2(row_gamma_.y - end)});
  }

  // The diagonal's; what is above that is of no use and may not be finite.
  __device__ __forceinline__ TileSum Diagonal(const TileSum& d) const {
    const float2* pairs = reinterpret_cast<const float2*>(gamma_ + first_);
    const float2 x = pairs[threadIdx.x % 4];
    const float2 y = pairs[threadIdx.x % 4 + 4];
    const auto [i0, i1] = row_gamma_;
    const TileSum decayed = {{d.left[0] * Exp2(i0 - x.x), d.left[1] * Exp2(i0 - x.y),
                              d.left[2] * Exp2(i1 - x.x), d.left[3] * Exp2(i1 - x.y)},
                             {d.right[0] * Exp2(i0 - y.x), d.right[1] * Exp2(i0 - y.y),
                              d.right[2] * Exp2(i1 - y.x), d.right[3] * Exp2(i1 - y.y)}};
    return ScaleRows(ScaleColumns(decayed, norm_ + first_), rows_);
  }

 private:
  const float* gamma_;
  const float* column_;
  const float* norm_;
  int first_;
  float2 rows_;
  float2 row_gamma_;
};

}  // namespace gdn::cuda::prepare
