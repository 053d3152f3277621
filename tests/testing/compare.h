// Compares a result with the truth in three tiers: NaN and infinity at exactly the same places,
// every element within |a - b| <= absolute + relative * |b|, and the whole within ‖a - b‖ <= norm *
// ‖b‖, which is what catches an error in elements smaller than `absolute`. A failure names the
// worst element by its coordinates.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "kernels/geometry.h"
#include "tests/testing/tensor.h"

namespace gdn::test {

struct Tolerance {
  double relative;
  double absolute;
  double norm;
};

// The same for relative and absolute. Rounding to bf16 alone costs up to 2^-8 of the norm.
inline Tolerance Within(double tolerance) {
  return {tolerance, tolerance, std::max(tolerance, 1.0 / 256)};
}

// A few roundings to `type` of numbers of order one.
inline Tolerance RoundingOf(DType type) {
  switch (type) {
    case DType::kBf16:
      return {1e-2, 1e-2, 1e-2};
    case DType::kFp16:
      return {2e-3, 2e-3, 2e-3};
    case DType::kFp32:
      break;
  }
  return {1e-4, 1e-5, 1e-5};
}

// "[1, 0, 7]": where the element `flat` of a tensor of `shape` lies.
inline std::string Coordinates(int64_t flat, const Shape& shape) {
  std::string text;
  for (auto dim = shape.rbegin(); dim != shape.rend(); ++dim) {
    text = std::to_string(flat % *dim) + (text.empty() ? "" : ", ") + text;
    flat /= *dim;
  }
  return "[" + text + "]";
}

inline bool SameClass(double a, double b) {
  if (std::isfinite(b)) return std::isfinite(a);
  return std::isnan(b) ? std::isnan(a) : a == b;
}

template <typename A, typename B>
::testing::AssertionResult Close(const A& actual, const B& expected, const Shape& shape,
                                 Tolerance t) {
  if (actual.size() != expected.size()) {
    return ::testing::AssertionFailure()
           << actual.size() << " elements, expected " << expected.size();
  }
  double worst = -1;  // error as a multiple of what is allowed
  size_t at = 0;
  size_t bad = 0;
  double error = 0;
  double norm = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double a = actual[i];
    const double b = expected[i];
    if (!SameClass(a, b)) {
      return ::testing::AssertionFailure()
             << "at " << Coordinates(i, shape) << ": " << a << ", expected " << b;
    }
    if (!std::isfinite(b)) continue;
    const double excess = std::abs(a - b) / (t.absolute + t.relative * std::abs(b));
    bad += excess > 1;
    if (excess > worst) worst = excess, at = i;
    error += (a - b) * (a - b);
    norm += b * b;
  }
  if (bad > 0) {
    return ::testing::AssertionFailure()
           << bad << " of " << expected.size() << " elements off; worst at "
           << Coordinates(at, shape) << ": " << actual[at] << ", expected " << expected[at] << " ("
           << worst << " times what is allowed)";
  }
  if (std::sqrt(error) > t.norm * std::sqrt(norm) + 1e-30) {
    return ::testing::AssertionFailure()
           << "relative error " << std::sqrt(error / norm) << " of the norm, allowed " << t.norm
           << "; worst at " << Coordinates(at, shape) << ": " << actual[at] << ", expected "
           << expected[at];
  }
  return ::testing::AssertionSuccess();
}

inline ::testing::AssertionResult Close(const Tensor& actual, const Tensor& expected,
                                        const Shape& shape, Tolerance t) {
  return Close(actual.floats(), expected.floats(), shape, t);
}

// Every element is zero, of either sign.
inline ::testing::AssertionResult AllZero(const std::vector<float>& x) {
  for (size_t i = 0; i < x.size(); ++i) {
    if (x[i] != 0.0f) return ::testing::AssertionFailure() << "element " << i << " is " << x[i];
  }
  return ::testing::AssertionSuccess();
}

// No element is NaN or infinite.
inline ::testing::AssertionResult AllFinite(const std::vector<float>& x) {
  for (size_t i = 0; i < x.size(); ++i) {
    if (!std::isfinite(x[i])) {
      return ::testing::AssertionFailure() << "element " << i << " is " << x[i];
    }
  }
  return ::testing::AssertionSuccess();
}

}  // namespace gdn::test
