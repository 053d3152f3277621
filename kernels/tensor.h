// A dense, row-major, non-owning view of a tensor. There are no strides.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "kernels/geometry.h"

namespace gdn {

struct TensorView {
  const void* data = nullptr;
  DType type = DType::kFp32;
  std::array<int64_t, 2> shape = {0, 0};  // [rows, columns]; a vector is [n, 1]

  int64_t elements() const { return shape[0] * shape[1]; }
  size_t bytes() const { return static_cast<size_t>(elements()) * SizeOf(type); }
  bool empty() const { return data == nullptr; }
  template <typename T>
  const T* as() const {
    return static_cast<const T*>(data);
  }
};

}  // namespace gdn
