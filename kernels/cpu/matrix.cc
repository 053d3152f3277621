#include "kernels/cpu/matrix.h"

#include "kernels/cpu/product.h"

namespace gdn::cpu {

MatrixProduct::MatrixProduct(DType io, int64_t out, int64_t in, int64_t max_rows)
    : io_(io), out_(out), in_(in) {
  if (io == DType::kBf16) library_ = OnednnProduct::Create(out, in, max_rows);
  if (library_ == nullptr) scratch_ = Memory(static_cast<size_t>(max_rows * in) * sizeof(float));
}

Memory MatrixProduct::Pack(const void* w) const {
  Memory packed(library_ != nullptr ? library_->packed_bytes() : PackedBytes(io_, out_, in_));
  if (library_ != nullptr) {
    library_->Pack(packed.data(), w);
  } else {
    PackMatrix(packed.data(), w, io_, out_, in_);
  }
  return packed;
}

void MatrixProduct::Run(const Memory& packed, const void* x, int64_t rows, void* y) const {
  if (library_ != nullptr) return library_->Run(packed.data(), x, rows, y);
  Multiply({.w = packed.data(),
            .io = io_,
            .out = out_,
            .in = in_,
            .x = x,
            .x_stride = in_,
            .y = y,
            .y_stride = out_,
            .scratch = scratch_.as<float>()},
           rows);
}

}  // namespace gdn::cpu
