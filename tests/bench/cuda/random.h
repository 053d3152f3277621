// Random tensors made on the device, and the error of one tensor against another.
#pragma once

#include <cstdint>

#include "kernels/geometry.h"
#include "tests/bench/cuda/device.h"

namespace gdn::bench {

// `n` normally distributed elements of `type`, mean 0, with `deviation`; the same for a seed.
Buffer Normal(DType type, int64_t n, float deviation, uint64_t seed);

// `n` elements of `type` as doubles.
Buffer Widen(const void* data, DType type, int64_t n);

// Root of the mean square of x - reference over that of reference; NaN where a difference is not
// finite. Both [n] doubles on the device.
double RelativeRms(const double* x, const double* reference, int64_t n);

}  // namespace gdn::bench
