// Norms and decays of the tokens of a chunk and head, by warps that have 16 of them each.
#pragma once

#include "kernels/cuda/device/pointwise.cuh"
#include "kernels/cuda/device/tile.cuh"
#include "kernels/ops/operands.h"

namespace gdn::cuda {

// Of a token: a lane has that of the 16 with its number, in either half of the warp.
struct TokenDecays {
  float begin;   // exp(gamma_i)
  float column;  // exp(gamma_e - gamma_i), e the last of the 16
  float end;     // exp(gamma_last - gamma_i)
};

// Sums 64 tokens' g and leaves gamma / ln 2 of the warp's tokens in `gamma`. Its halves may have
// different heads.
__device__ __forceinline__ TokenDecays SumGates(const float* gates, int warp, float* gamma) {
  constexpr float kLog2E = 1.4426950408889634f;
  const int lane = threadIdx.x % 32;
  const int four = lane % 16;
  float4 g = reinterpret_cast<const float4*>(gates)[four];
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
    reinterpret_cast<float4*>(gamma)[four] = {(before + g.x) * kLog2E, (before + g.y) * kLog2E,
                                              (before + g.z) * kLog2E, (before + g.w) * kLog2E};
  }
  __syncwarp();
  const float* own = gamma + warp * kTileDim;
  const float mine = own[lane % kTileDim];
  return {Exp2(mine), Exp2(own[kTileDim - 1] - mine), Exp2(last - mine)};
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

__device__ __forceinline__ float InverseNorm(float square) {
  return InverseRoot(square + kL2NormEps);
}

// Multiplies sums of the warp's rows i by row_i * n_j * exp(gamma_i - gamma_j), in two steps where
// there are tokens between: no exponent is positive.
class Decay {
 public:
  // gamma / ln 2, n_j * TokenDecays::column and n of 64 tokens.
  __device__ Decay(const float* gamma, const float* column, const float* norm, int warp,
                   float2 rows)
      : gamma_(gamma),
        column_(column),
        norm_(norm),
        first_(warp * kTileDim),
        rows_(rows),
        row_gamma_(RowsOf(gamma + warp * kTileDim)) {}

  // The tile of columns 16j.., left of the diagonal's.
  __device__ __forceinline__ TileSum Left(const TileSum& d, int j) const {
    const float end = gamma_[j * kTileDim + kTileDim - 1];
    const float2 rows = {rows_.x * Exp2(row_gamma_.x - end), rows_.y * Exp2(row_gamma_.y - end)};
    return Scaled(Scaled(d, ColumnsOf(column_ + j * kTileDim)), rows);
  }

  // The diagonal's; what is above that is of no use and may not be finite.
  __device__ __forceinline__ TileSum Diagonal(const TileSum& d) const {
    const float4 j = ColumnsOf(gamma_ + first_);
    const auto [i0, i1] = row_gamma_;
    const TileSum decayed = {{d.left[0] * Exp2(i0 - j.x), d.left[1] * Exp2(i0 - j.y),
                              d.left[2] * Exp2(i1 - j.x), d.left[3] * Exp2(i1 - j.y)},
                             {d.right[0] * Exp2(i0 - j.z), d.right[1] * Exp2(i0 - j.w),
                              d.right[2] * Exp2(i1 - j.z), d.right[3] * Exp2(i1 - j.w)}};
    return Scaled(Scaled(decayed, ColumnsOf(norm_ + first_)), rows_);
  }

 private:
  const float* gamma_;
  const float* column_;
  const float* norm_;
  int first_;
  float2 rows_;
  float2 row_gamma_;
};

}  // namespace gdn::cuda
