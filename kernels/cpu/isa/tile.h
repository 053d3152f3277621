// The micro-kernel that every matrix product here ends in: a tile of some rows by one panel of
// columns, held in registers while it runs down the depth.
#pragma once

#include "kernels/cpu/isa/vec.h"

namespace gdn::cpu {
namespace {

// Two vectors of columns; rows so that sums, one row of b and one element of a fit the registers.
inline constexpr int64_t kPanel = int64_t{2} * kLanes;
inline constexpr int kTileRows = kRegisters == 32 ? 12 : 6;
// Rows of b to prefetch ahead: with few tokens b comes from memory, faster than the hardware looks
// ahead by itself.
inline constexpr int kAhead = 24;

// a(i, k) = data[i * stride + k]
struct RowOperand {
  const float* data;
  int64_t stride;

  RowOperand from(int64_t row) const { return {data + row * stride, stride}; }
  template <int Rows>
  float at(int64_t i, int64_t k) const {
    return data[i * stride + k];
  }
};

// Its transpose: a(i, k) = data[k * stride + i]
struct ColumnOperand {
  const float* data;
  int64_t stride;

  ColumnOperand from(int64_t row) const { return {data + row, stride}; }
  template <int Rows>
  float at(int64_t i, int64_t k) const {
    return data[k * stride + i];
  }
};

// A whole tile's rows interleaved: a(i, k) = data[k * Rows + i]
struct PackedOperand {
  const float* data;

  template <int Rows>
  float at(int64_t i, int64_t k) const {
    return data[k * Rows + i];
  }
};

// c = factor * c + a · b with b [depth, panel] dense and c's rows `c_stride` apart. With factor 0 c
// is not read. Ahead: b comes from memory, and is fetched ahead of its use.
//
// Where two hardware threads share a core, instructions and not arithmetic are what it runs out of:
// hence operands at constant distances and the loop unrolled.
template <int Rows, bool Ahead, typename A>
inline void Tile(int64_t depth, A a, const float* b, float* c, int64_t c_stride, float factor) {
  VecF sum[Rows][2];
  if (factor == 0.0f) {
    for (int i = 0; i < Rows; ++i) sum[i][0] = sum[i][1] = VecF{};
  } else {
    for (int i = 0; i < Rows; ++i) {
      sum[i][0] = factor * LoadV(c + i * c_stride);
      sum[i][1] = factor * LoadV(c + i * c_stride + kLanes);
    }
  }
#pragma GCC unroll 4
  for (int64_t k = 0; k < depth; ++k) {
    if constexpr (Ahead) __builtin_prefetch(b + (k + kAhead) * kPanel);
    const VecF b0 = LoadV(b + k * kPanel), b1 = LoadV(b + k * kPanel + kLanes);
#pragma GCC unroll 12
    for (int i = 0; i < Rows; ++i) {
      const VecF x = Broadcast(a.template at<Rows>(i, k));
      sum[i][0] += x * b0;
      sum[i][1] += x * b1;
    }
  }
  for (int i = 0; i < Rows; ++i) {
    StoreV(c + i * c_stride, sum[i][0]);
    StoreV(c + i * c_stride + kLanes, sum[i][1]);
  }
}

// Tile<rows> for rows known at run time, 1..kTileRows.
template <bool Ahead = false, int Rows = kTileRows, typename A>
inline void TileOf(int rows, int64_t depth, A a, const float* b, float* c, int64_t c_stride,
                   float factor) {
  if constexpr (Rows > 0) {
    if (rows == Rows) return Tile<Rows, Ahead>(depth, a, b, c, c_stride, factor);
    TileOf<Ahead, Rows - 1>(rows, depth, a, b, c, c_stride, factor);
  }
}

// Rows cut into the fewest tiles, of heights that differ by one at most.
struct TileCut {
  explicit TileCut(int64_t rows)
      : count((rows + kTileRows - 1) / kTileRows),
        height(count == 0 ? 0 : rows / count),
        taller(rows - height * count) {}
  int64_t begin(int64_t i) const { return i * height + (i < taller ? i : taller); }
  int rows(int64_t i) const { return static_cast<int>(height + (i < taller ? 1 : 0)); }

  int64_t count;
  int64_t height;
  int64_t taller;  // the first so many have height + 1
};

}  // namespace
}  // namespace gdn::cpu
