// The projections' matrices: packed once, multiplied by the fastest means that the CPU offers.
#pragma once

#include <cstdint>
#include <memory>

#include "kernels/cpu/memory.h"
#include "kernels/cpu/onednn_product.h"
#include "kernels/geometry.h"

namespace gdn::cpu {

// All products with matrices of one shape: y [rows, out] = x [rows, in] · wᵀ, dense, of one type.
class MatrixProduct {
 public:
  // Of up to `max_rows` rows; x and y must have room for so many.
  MatrixProduct(DType io, int64_t out, int64_t in, int64_t max_rows);

  // w [out, in], which may go away afterwards.
  Memory Pack(const void* w) const;

  void Run(const Memory& packed, const void* x, int64_t rows, void* y) const;

 private:
  DType io_;
  int64_t out_;
  int64_t in_;
  std::unique_ptr<OnednnProduct> library_;  // null: our own
  Memory scratch_;
};

}  // namespace gdn::cpu
