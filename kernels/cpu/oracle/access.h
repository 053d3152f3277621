// Moves vectors between typed memory and doubles.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/dtype.h"

namespace gdn::oracle {

// Elements [begin, begin + count) of a tensor.
inline std::vector<double> LoadVector(const void* data, DType type, int64_t begin, int64_t count) {
  std::vector<double> x(count);
  for (int64_t i = 0; i < count; ++i) x[i] = Load(data, type, begin + i);
  return x;
}

inline void StoreVector(std::span<const double> x, void* data, DType type, int64_t begin) {
  for (size_t i = 0; i < x.size(); ++i) {
    Store(data, type, begin + static_cast<int64_t>(i), static_cast<float>(x[i]));
  }
}

inline void StoreZeros(void* data, DType type, int64_t begin, int64_t count) {
  for (int64_t i = 0; i < count; ++i) Store(data, type, begin + i, 0.0f);
}

}  // namespace gdn::oracle
