// The ops that look at one token at a time.
#include <cmath>
#include <vector>

#include "kernels/cpu/oracle/access.h"
#include "kernels/cpu/oracle/math.h"
#include "kernels/cpu/oracle/ops.h"

namespace gdn::oracle {

void L2Norm(const L2NormParams& p) {
  for (int64_t t = 0; t < p.tokens; ++t) {
    for (int h = 0; h < p.heads; ++h) {
      const int64_t within = int64_t{h} * p.dim;
      std::vector<double> x = LoadVector(p.x, p.x_type, t * p.x_stride + within, p.dim);
      L2Normalise(x, p.eps);
      StoreVector(x, p.y, p.y_type, t * p.y_stride + within);
    }
  }
}

void FusedGdnGating(const FusedGdnGatingParams& p) {
  for (int64_t t = 0; t < p.tokens; ++t) {
    for (int h = 0; h < p.value_heads; ++h) {
      const double a = Load(p.a, p.io, t * p.a_stride + h);
      const double b = Load(p.b, p.io, t * p.b_stride + h);
      const int64_t out = t * p.value_heads + h;
      p.g[out] = static_cast<float>(LogDecay(a, p.a_log[h], p.dt_bias[h]));
      p.beta[out] = static_cast<float>(Sigmoid(b));
    }
  }
}

void RmsNormGated(const RmsNormGatedParams& p) {
  for (int64_t t = 0; t < p.tokens; ++t) {
    for (int h = 0; h < p.value_heads; ++h) {
      const int64_t within = int64_t{h} * p.value_dim;
      std::vector<double> x = LoadVector(p.x, p.x_type, t * p.x_stride + within, p.value_dim);
      const double rsqrt = 1.0 / std::sqrt(SumOfSquares(x) / p.value_dim + p.eps);
      for (int i = 0; i < p.value_dim; ++i) {
        const double z = Load(p.z, p.io, t * p.z_stride + within + i);
        x[i] *= rsqrt * p.weight[i] * ApplyGate(p.gate, z);
      }
      StoreVector(x, p.y, p.io, t * p.y_stride + within);
    }
  }
}

void Projection(const ProjectionParams& p) {
  for (int64_t t = 0; t < p.tokens; ++t) {
    const std::vector<double> x = LoadVector(p.x, p.io, t * p.x_stride, p.in);
    for (int64_t o = 0; o < p.out; ++o) {
      double sum = 0;
      for (int64_t i = 0; i < p.in; ++i) sum += x[i] * Load(p.w, p.io, o * p.in + i);
      Store(p.y, p.io, t * p.y_stride + o, static_cast<float>(sum));
    }
  }
}

}  // namespace gdn::oracle
