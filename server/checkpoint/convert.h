// Conversion of weights between the types on disk and in memory.
#pragma once

#include <cstddef>

#include "kernels/geometry.h"

namespace gdn {

// Converts n elements, rounding to nearest even. `in` and `out` do not overlap.
void Convert(DType from, const void* in, DType to, void* out, size_t n);

// Whether none of the n elements is NaN or infinite.
bool AllFinite(DType type, const void* data, size_t n);

}  // namespace gdn
