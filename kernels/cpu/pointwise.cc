#include <cmath>
#include <cstring>

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/ops.h"
#include "kernels/cpu/parallel.h"
#include "kernels/dtype.h"

namespace gdn::cpu {
namespace {

// Tokens that a task takes: enough to be worth handing to another thread.
constexpr int64_t kPiece = 8;

const std::byte* At(const void* data, DType type, int64_t i) {
  return static_cast<const std::byte*>(data) + i * static_cast<int64_t>(SizeOf(type));
}

std::byte* At(void* data, DType type, int64_t i) {
  return static_cast<std::byte*>(data) + i * static_cast<int64_t>(SizeOf(type));
}

float Softplus(float x) { return x > 20.0f ? x : std::log1p(std::exp(x)); }

float Sigmoid(float x) { return 1.0f / (1.0f + std::exp(-x)); }

}  // namespace

void L2Norm(const L2NormParams& p) {
  ParallelForPieces(p.tokens, kPiece, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t h = 0; h < p.heads; ++h) {
        BestKernels().l2norm({.dim = p.dim,
                              .eps = p.eps,
                              .x = At(p.x, p.x_type, t * p.x_stride + h * p.dim),
                              .x_type = p.x_type,
                              .y = At(p.y, p.y_type, t * p.y_stride + h * p.dim),
                              .y_type = p.y_type});
      }
    }
  });
}

void RmsNormGated(const RmsNormGatedParams& p) {
  ParallelForPieces(p.tokens, kPiece, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t h = 0; h < p.value_heads; ++h) {
        const int64_t head = h * p.value_dim;
        BestKernels().rmsnorm_gated({.dim = p.value_dim,
                                     .eps = p.eps,
                                     .x = At(p.x, p.x_type, t * p.x_stride + head),
                                     .x_type = p.x_type,
                                     .y = At(p.y, p.io, t * p.y_stride + head),
                                     .y_type = p.io,
                                     .z = At(p.z, p.io, t * p.z_stride + head),
                                     .gate = p.gate,
                                     .weight = p.weight});
      }
    }
  });
}

void FusedGdnGating(const FusedGdnGatingParams& p) {
  ParallelForPieces(p.tokens, kPiece, [&](int64_t begin, int64_t end) {
    for (int64_t h = 0; h < p.value_heads; ++h) {
      const float rate = -std::exp(p.a_log[h]);
      for (int64_t t = begin; t < end; ++t) {
        const float a = Load(p.a, p.io, t * p.a_stride + h);
        const float b = Load(p.b, p.io, t * p.b_stride + h);
        p.g[t * p.value_heads + h] = rate * Softplus(a + p.dt_bias[h]);
        p.beta[t * p.value_heads + h] = Sigmoid(b);
      }
    }
  });
}

}  // namespace gdn::cpu
