// Products with a weight matrix in our own packed form: fp32 arithmetic on any instruction set.
//
// Why not the library's: on AVX2 its products of 8 tokens take twice as long as reading the weights
// does, it has none for 16-bit weights there, and products of many tokens take it as long as these.
// So one packed copy in the weights' own type serves decode and prefill.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/geometry.h"

namespace gdn::cpu {

// Bytes of w [out, in] packed.
size_t PackedBytes(DType type, int64_t out, int64_t in);

void PackMatrix(void* packed, const void* w, DType type, int64_t out, int64_t in);

// y [rows, out] = x [rows, in] · wᵀ, of one type. A row's bits do not depend on the rows beside it.
struct PackedProduct {
  const void* w = nullptr;  // by PackMatrix
  DType io = DType::kFp32;
  int64_t out = 0;
  int64_t in = 0;
  const void* x = nullptr;
  int64_t x_stride = 0;
  void* y = nullptr;
  int64_t y_stride = 0;
  float* scratch = nullptr;  // [min(rows, kMaxProductRows), in]
};

void Multiply(const PackedProduct& p, int64_t rows);

}  // namespace gdn::cpu
