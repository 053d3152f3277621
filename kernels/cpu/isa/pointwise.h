// Convolution and the two normalisations.
#pragma once

#include "kernels/cpu/isa/math.h"
#include "kernels/cpu/kernels.h"

namespace gdn::cpu {
namespace {

inline constexpr int kMaxConvWidth = 4;

// Everything of a convolution's block that does not change from token to token.
struct ConvWeights {
  float weight[kMaxConvWidth][kConvBlock];
  float bias[kConvBlock];
};

inline void Transpose(const ConvTask& t, ConvWeights& w) {
  for (int64_t c = 0; c < kConvBlock; ++c) {
    w.bias[c] = t.bias != nullptr && c < t.channels ? t.bias[c] : 0.0f;
    for (int64_t j = 0; j < t.width; ++j) {
      w.weight[j][c] = c < t.channels ? t.weight[c * t.width + j] : 0.0f;
    }
  }
}

// y[c] = activation(bias[c] + sum over j < W of weight[j][c] * rows[j][c])
template <typename T>
inline void ConvToken(const ConvTask& t, const ConvWeights& w, const T* const* rows, T* y) {
  ForEachVector(t.channels, [&](int64_t c, int lanes) {
    VecF sum = LoadV(w.bias + c);
    for (int64_t j = 0; j < t.width; ++j) sum += LoadV(w.weight[j] + c) * LoadV(rows[j] + c, lanes);
    StoreV(y + c, t.activation == Activation::kSilu ? Silu(sum) : sum, lanes);
  });
}

template <typename T>
inline void ConvAs(const ConvTask& t) {
  ConvWeights w;
  Transpose(t, w);
  const T zeros[kConvBlock] = {};
  const auto* x = static_cast<const T*>(t.x);
  auto* y = static_cast<T*>(t.y);
  auto* state = static_cast<T*>(t.state);
  const int history = t.width - 1;
  // Row i of the input with its history before it: i < 0 is in the slot.
  const auto row = [&](int64_t i) -> const T* {
    if (i >= 0) return x + i * t.x_stride;
    return state != nullptr && t.load_state ? state + (history + i) * t.state_stride : zeros;
  };
  for (int64_t i = 0; i < t.tokens; ++i) {
    const T* rows[kMaxConvWidth];
    for (int64_t j = 0; j < t.width; ++j) rows[j] = row(i - history + j);
    ConvToken(t, w, rows, y + i * t.y_stride);
  }
  if (state == nullptr) return;
  // Ascending, so that what a row is taken from has not been overwritten.
  for (int64_t j = 0; j < history; ++j) {
    memmove(state + j * t.state_stride, row(t.tokens - history + j),
            static_cast<size_t>(t.channels) * sizeof(T));
  }
}

inline void Conv(const ConvTask& t) {
  WithType(t.io, [&]<typename T>(TypeTag<T>) { ConvAs<T>(t); });
}

template <typename T>
inline float SumOfSquares(const T* x, int64_t n) {
  VecF sum = {};
  ForEachVector(n, [&](int64_t i, int lanes) {
    const VecF v = LoadV(x + i, lanes);
    sum += v * v;
  });
  return SumLanes(sum);
}

// 1 / sqrt(x), NaN where the sum of squares x has overflowed: an infinite norm must not pass as a
// vector of zeros.
inline float InverseRoot(float x) { return 1.0f / __builtin_sqrtf(x) + (x - x); }

// y = x * rsqrt(sum of x² + eps)
template <typename X, typename Y>
inline void L2Normalise(Y* y, const X* x, int64_t n, float eps) {
  const float factor = InverseRoot(SumOfSquares(x, n) + eps);
  ForEachVector(n,
                [&](int64_t i, int lanes) { StoreV(y + i, LoadV(x + i, lanes) * factor, lanes); });
}

inline void L2Norm(const NormTask& t) {
  WithType(t.x_type, [&]<typename X>(TypeTag<X>) {
    WithType(t.y_type, [&]<typename Y>(TypeTag<Y>) {
      L2Normalise(static_cast<Y*>(t.y), static_cast<const X*>(t.x), t.dim, t.eps);
    });
  });
}

// y = x * rsqrt(mean of x² + eps) * weight * gate(z)
template <typename X, typename T>
inline void RmsNormGatedAs(const NormTask& t, const X* x, const T* z, T* y) {
  const float mean = SumOfSquares(x, t.dim) / static_cast<float>(t.dim);
  const float factor = InverseRoot(mean + t.eps);
  ForEachVector(t.dim, [&](int64_t i, int lanes) {
    const VecF gate = LoadV(z + i, lanes);
    const VecF normed = LoadV(x + i, lanes) * factor * LoadV(t.weight + i, lanes);
    StoreV(y + i, normed * (t.gate == Gate::kSilu ? Silu(gate) : Sigmoid(gate)), lanes);
  });
}

inline void RmsNormGated(const NormTask& t) {
  WithType(t.x_type, [&]<typename X>(TypeTag<X>) {
    WithType(t.y_type, [&]<typename T>(TypeTag<T>) {
      RmsNormGatedAs(t, static_cast<const X*>(t.x), static_cast<const T*>(t.z),
                     static_cast<T*>(t.y));
    });
  });
}

}  // namespace
}  // namespace gdn::cpu
