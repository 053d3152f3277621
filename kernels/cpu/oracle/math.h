// The equations of the layer for one head and token, in double.
#pragma once

#include <cmath>
#include <cstdint>
#include <span>

#include "kernels/geometry.h"

namespace gdn::oracle {

inline double Sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

inline double Silu(double x) { return x * Sigmoid(x); }

inline double Softplus(double x) { return x > 20.0 ? x : std::log1p(std::exp(x)); }

inline double Activate(Activation activation, double x) {
  return activation == Activation::kSilu ? Silu(x) : x;
}

inline double ApplyGate(Gate gate, double z) { return gate == Gate::kSilu ? Silu(z) : Sigmoid(z); }

// -exp(a_log) * softplus(a + dt_bias)
inline double LogDecay(double a, double a_log, double dt_bias) {
  return -std::exp(a_log) * Softplus(a + dt_bias);
}

inline double SumOfSquares(std::span<const double> x) {
  double sum = 0;
  for (double e : x) sum += e * e;
  return sum;
}

// x * rsqrt(sum of x² + eps), in place.
inline void L2Normalise(std::span<double> x, double eps) {
  const double factor = 1.0 / std::sqrt(SumOfSquares(x) + eps);
  for (double& e : x) e *= factor;
}

// One token of one head, with s [V][K]:
//   S *= exp(g);  d = beta * (v - Sᵀ k);  S += k ⊗ d;  o = scale * Sᵀ q
inline void DeltaStep(std::span<double> s, std::span<const double> q, std::span<const double> k,
                      std::span<const double> v, double g, double beta, double scale,
                      std::span<double> o) {
  const double decay = std::exp(g);
  for (size_t j = 0; j < v.size(); ++j) {
    std::span<double> row = s.subspan(j * k.size(), k.size());
    double predicted = 0;
    for (size_t i = 0; i < k.size(); ++i) {
      row[i] *= decay;
      predicted += row[i] * k[i];
    }
    const double d = beta * (v[j] - predicted);
    double out = 0;
    for (size_t i = 0; i < k.size(); ++i) {
      row[i] += k[i] * d;
      out += row[i] * q[i];
    }
    o[j] = scale * out;
  }
}

}  // namespace gdn::oracle
