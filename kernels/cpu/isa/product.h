// Products of tokens with a weight matrix packed once: fp32 arithmetic on weights kept in their own
// type. A group of 64 columns lies as [depth / 256][panel][256][panel columns], so that a step with
// few tokens reads it in one stream, and one with many finds each block in the first-level cache.
#pragma once

#include "kernels/cpu/isa/tile.h"
#include "kernels/cpu/kernels.h"

namespace gdn::cpu {
namespace {

inline int64_t DepthOf(int64_t depth, int64_t begin) {
  return depth - begin < kDepth ? depth - begin : kDepth;
}

inline int64_t Panels(int64_t columns) { return (columns + kPanel - 1) / kPanel; }

template <typename T>
inline void PackColumnsAs(T* packed, const T* w, int64_t depth, int columns) {
  for (int64_t k0 = 0; k0 < depth; k0 += kDepth) {
    const int64_t part = DepthOf(depth, k0);
    for (int64_t panel = 0; panel < Panels(columns); ++panel) {
      for (int64_t j = 0; j < kPanel; ++j) {
        const int64_t column = panel * kPanel + j;
        for (int64_t k = 0; k < part; ++k) {
          packed[k * kPanel + j] = column < columns ? w[column * depth + k0 + k] : T{};
        }
      }
      packed += part * kPanel;
    }
  }
}

inline void PackColumns(void* packed, const void* w, DType type, int64_t depth, int columns) {
  if (type == DType::kFp32) {
    PackColumnsAs(static_cast<float*>(packed), static_cast<const float*>(w), depth, columns);
  } else {
    PackColumnsAs(static_cast<uint16_t*>(packed), static_cast<const uint16_t*>(w), depth, columns);
  }
}

// [depth / 256][tile][256][tile rows]. Rows are those of whole tiles or not: each row's place
// depends on the number of rows alone.
inline void PackRows(float* packed, const void* x, DType type, int64_t x_stride, int64_t rows,
                     int64_t depth, int64_t begin, int64_t end) {
  const TileCut cut(rows);
  WithType(type, [&]<typename T>(TypeTag<T>) {
    for (int64_t tile = 0; tile < cut.count; ++tile) {
      const int64_t first = cut.begin(tile);
      const int height = cut.rows(tile);
      for (int64_t row = first < begin ? begin : first; row < first + height && row < end; ++row) {
        for (int64_t k0 = 0; k0 < depth; k0 += kDepth) {
          const int64_t part = DepthOf(depth, k0);
          float line[kDepth];
          Copy(line, static_cast<const T*>(x) + row * x_stride + k0, part);
          float* to = packed + k0 * rows + first * part + (row - first);
          for (int64_t k = 0; k < part; ++k) to[k * height] = line[k];
        }
      }
    }
  });
}

// A block of weights in fp32: itself, or converted to `room`.
inline const float* BlockInFloat(const void* w, DType type, int64_t n, float* room) {
  if (type == DType::kFp32) return static_cast<const float*>(w);
  ToFloat(room, w, type, n);
  return room;
}

// One tile of rows by one block of a panel, added to the sums.
inline void ProductTile(const ProductTask& t, const TileCut& cut, int64_t tile, int64_t k0,
                        const float* b, float* sums) {
  const int64_t part = DepthOf(t.depth, k0);
  const int64_t first = cut.begin(tile);
  const PackedOperand a = {t.x + k0 * t.rows + first * part};
  const float factor = k0 == 0 ? 0.0f : 1.0f;
  sums += first * kGroupColumns;
  if (tile == 0) {
    TileOf<true>(cut.rows(tile), part, a, b, sums, kGroupColumns, factor);
  } else {
    TileOf(cut.rows(tile), part, a, b, sums, kGroupColumns, factor);
  }
}

inline void Product(const ProductTask& t) {
  alignas(64) float room[kDepth * kPanel];
  const TileCut cut(t.rows);
  const auto* w = static_cast<const unsigned char*>(t.w);
  const int64_t w_bytes = t.w_type == DType::kFp32 ? 4 : 2;
  for (int64_t k0 = 0; k0 < t.depth; k0 += kDepth) {
    const int64_t block = DepthOf(t.depth, k0) * kPanel;
    for (int64_t panel = 0; panel < Panels(t.columns); ++panel, w += block * w_bytes) {
      const float* b = BlockInFloat(w, t.w_type, block, room);
      for (int64_t tile = 0; tile < cut.count; ++tile) {
        ProductTile(t, cut, tile, k0, b, t.sums + panel * kPanel);
      }
    }
  }
  const int64_t y_bytes = t.y_type == DType::kFp32 ? 4 : 2;
  for (int64_t row = 0; row < t.rows; ++row) {
    FromFloat(static_cast<unsigned char*>(t.y) + row * t.y_stride * y_bytes, t.y_type,
              t.sums + row * kGroupColumns, t.columns);
  }
}

}  // namespace
}  // namespace gdn::cpu
