// The inverse of a unit lower triangular 64 x 64 matrix I + A by tiles of 16 x 16, by four warps.
//
// With D_i the inverses of the diagonal's tiles and U the transpose of the whole inverse,
//   U_jj = D_jᵀ,  U_ji = -(sum over j <= l < i of U_jl A_ilᵀ) D_iᵀ  for i > j
// A warp has the tiles of one j to itself, so that all it needs of the others is what lies in
// memory before it begins; each sum is the next product's left operand as it comes.
#pragma once

#include "kernels/cuda/device/tile.cuh"

namespace gdn::cuda {

inline constexpr int kLowerBlocks = 4;

// Elements are kept as fp16: keys are normalised, so that none of A is above beta.
struct LowerTiles {
  uint4 diagonal[kLowerBlocks][32];  // the inverses D, their quarters' rows one after another
  Tile tiles[kLowerBlocks * (kLowerBlocks - 1) / 2][32];  // -A below the diagonal's
  uint4 unused[192];                                      // to the size of a panel

  __device__ Tile (&below(int i, int j))[32] { return tiles[i * (i - 1) / 2 + j]; }
  __device__ const Tile (&below(int i, int j) const)[32] { return tiles[i * (i - 1) / 2 + j]; }
  __device__ uint32_t row_of_diagonal(int i) const {
    return SharedAddress(diagonal[i] + threadIdx.x % 32);
  }

  // By a warp.
  __device__ __forceinline__ void Store(int i, int j, const TileSum& s) {
    below(i, j)[threadIdx.x % 32] = PackTile<__half>(s);
  }
  __device__ __forceinline__ Tile Load(int i, int j) const { return below(i, j)[threadIdx.x % 32]; }
  __device__ __forceinline__ void StoreDiagonal(int i, const Tile& d) {
    StoreMatrices(row_of_diagonal(i), d);
  }
  __device__ __forceinline__ Tile LoadDiagonal(int i) const {
    return LoadMatrices(row_of_diagonal(i));
  }
  __device__ __forceinline__ LeftTile LoadDiagonalTransposed(int i) const {
    return {LoadMatricesTransposed(row_of_diagonal(i))};
  }
};

// A pair of each of two quarters of tiles, as a rule of those on the diagonal.
struct Quarters {
  uint32_t top;
  uint32_t bottom;

  __device__ Quarters(uint32_t top, uint32_t bottom) : top(top), bottom(bottom) {}
  explicit __device__ Quarters(const float (&sums)[4])
      : Quarters(PackPair<__half>(sums[0], sums[1]), PackPair<__half>(sums[2], sums[3])) {}

  __device__ __forceinline__ Quarters Transposed() const {
    return {TransposeMatrix(top), TransposeMatrix(bottom)};
  }
};

// d += a * bᵀ of quarters.
__device__ __forceinline__ void MultiplyAdd(float (&d)[4], const Quarters& a, const Quarters& b) {
  Mma<__half>(d, a.top, 0, 0, a.bottom, b.top, b.bottom);
}

// D of a tile on the diagonal, by a warp; of `lower`, -A, only what lies below the diagonal is
// selected: the rest may not be finite. From the inverse D of the blocks of s x s on the diagonal,
// that of blocks twice as large is
//   D - D M D,  M what A has below the former in the latter
// D of blocks of 2 x 2 is there at once; both quarters go on to 4 and 8 together, and then join.
// There are no powers of A, which would grow.
__device__ __forceinline__ Tile InvertUnitLower(const TileSum& lower) {
  const int i = threadIdx.x % 32 / 4;
  const int j = threadIdx.x % 4 * 2;  // of the lane's pairs (i, j), (i, j + 1) of a quarter
  const Quarters columns = Quarters(PackPair<__half>(lower.left[0], lower.left[1]),
                                    PackPair<__half>(lower.right[2], lower.right[3]))
                               .Transposed();
  const uint32_t below = TransposeMatrix(PackPair<__half>(lower.left[2], lower.left[3]));
  const float unit = i == j + 1 ? 1.0f : 0.0f;
  const auto first = [&](float a) { return i == j ? 1.0f : i == j + 1 ? a : 0.0f; };
  float d[4] = {first(lower.left[0]), unit, first(lower.right[2]), unit};
#pragma unroll
  for (int s = 2; s < kTileDim / 2; s *= 2) {
    const bool in_m = i / (2 * s) == j / (2 * s) && i % (2 * s) < s && j % (2 * s) >= s;  // of -Mᵀ
    const Quarters m = {in_m ? columns.top : 0, in_m ? columns.bottom : 0};
    const Quarters before(d);
    float product[4] = {};
    MultiplyAdd(product, before, m);
    MultiplyAdd(d, Quarters(product), before.Transposed());
  }
  const Quarters quarters(d);
  float product[4] = {};
  MultiplyAdd(product, {quarters.bottom, 0}, {below, 0});
  float left[4] = {};
  MultiplyAdd(left, {Quarters(product).top, 0}, {TransposeMatrix(quarters.top), 0});
  return {quarters.top, 0, Quarters(left).top, quarters.bottom};
}

// Calls take(i, U_ji) for the warp's j and i = j.., one after another; `i` is known to the
// compiler.
template <typename F>
__device__ __forceinline__ void InvertColumns(const LowerTiles& lower, int j, F&& take) {
  TileSum sums[kLowerBlocks];
#pragma unroll
  for (int l = 0; l < kLowerBlocks; ++l) {
    if (l < j) continue;
    TileSum u;
    LeftTile left;
    if (l == j) {
      left = lower.LoadDiagonalTransposed(l);
      u = UnpackLeft<__half>(left);
    } else {
      MultiplyAdd<__half>(u, PackLeft<__half>(sums[l]), lower.LoadDiagonal(l));
      left = PackLeft<__half>(u);
    }
#pragma unroll
    for (int i = l + 1; i < kLowerBlocks; ++i) {
      MultiplyAdd<__half>(sums[i], left, lower.Load(i, l));
    }
    take(l, u);
  }
}

}  // namespace gdn::cuda
