#include "kernels/cpu/product.h"

#include <algorithm>

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/memory.h"
#include "kernels/cpu/ops.h"
#include "kernels/cpu/parallel.h"

namespace gdn::cpu {
namespace {

// Elements of a group of columns, and where group i begins: all but the last are full.
int64_t GroupElements(int64_t columns, int64_t in) {
  const int64_t panel = BestKernels().panel;
  return (columns + panel - 1) / panel * panel * in;
}

int64_t Groups(int64_t out) { return (out + kGroupColumns - 1) / kGroupColumns; }

int GroupColumns(int64_t out, int64_t group) {
  return static_cast<int>(std::min<int64_t>(kGroupColumns, out - group * kGroupColumns));
}

void MultiplyTile(const PackedProduct& p, const std::byte* x, std::byte* y, int64_t rows) {
  const Kernels& kernels = BestKernels();
  ParallelForPieces(rows, (rows + Threads() - 1) / Threads(), [&](int64_t begin, int64_t end) {
    kernels.pack_rows(p.scratch, x, p.io, p.x_stride, rows, p.in, begin, end);
  });
  const size_t size = SizeOf(p.io);
  ParallelFor(Groups(p.out), [&](int64_t group) {
    const int64_t column = group * kGroupColumns;
    kernels.product({.rows = rows,
                     .depth = p.in,
                     .columns = GroupColumns(p.out, group),
                     .x = p.scratch,
                     .w = static_cast<const std::byte*>(p.w) + column * p.in * size,
                     .w_type = p.io,
                     .y = y + column * size,
                     .y_type = p.io,
                     .y_stride = p.y_stride,
                     .sums = ThreadScratch(size_t{kMaxProductRows} * kGroupColumns)});
  });
}

}  // namespace

size_t PackedBytes(DType type, int64_t out, int64_t in) {
  return static_cast<size_t>(GroupElements(out, in)) * SizeOf(type);
}

void PackMatrix(void* packed, const void* w, DType type, int64_t out, int64_t in) {
  ParallelFor(Groups(out), [&](int64_t group) {
    const size_t offset = static_cast<size_t>(group * kGroupColumns * in) * SizeOf(type);
    BestKernels().pack_columns(static_cast<std::byte*>(packed) + offset,
                               static_cast<const std::byte*>(w) + offset, type, in,
                               GroupColumns(out, group));
  });
}

void Multiply(const PackedProduct& p, int64_t rows) {
  const auto* x = static_cast<const std::byte*>(p.x);
  auto* y = static_cast<std::byte*>(p.y);
  for (int64_t row = 0; row < rows; row += kMaxProductRows) {
    MultiplyTile(p, x + row * p.x_stride * SizeOf(p.io), y + row * p.y_stride * SizeOf(p.io),
                 std::min<int64_t>(kMaxProductRows, rows - row));
  }
}

void Projection(const ProjectionParams& p) {
  const Memory packed(PackedBytes(p.io, p.out, p.in));
  PackMatrix(packed.data(), p.w, p.io, p.out, p.in);
  const int64_t rows = std::min<int64_t>(kMaxProductRows, p.tokens);
  const Memory scratch(static_cast<size_t>(rows * p.in) * sizeof(float));
  Multiply({.w = packed.data(),
            .io = p.io,
            .out = p.out,
            .in = p.in,
            .x = p.x,
            .x_stride = p.x_stride,
            .y = p.y,
            .y_stride = p.y_stride,
            .scratch = scratch.as<float>()},
           p.tokens);
}

}  // namespace gdn::cpu
