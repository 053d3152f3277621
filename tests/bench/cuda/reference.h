// The core of the layer in double, token by token, as plain device code: what the benchmarks check
// results against before they time. K = V = 128. Enqueued on the default stream.
#pragma once

#include <cstdint>

#include "kernels/ops/operands.h"
#include "tests/bench/cuda/device.h"

namespace gdn::bench {

// Everything [.., ..] dense doubles unless it says otherwise; offsets as in Rows, on the device.
struct DeltaReference {
  int64_t rows = 0;
  int64_t tokens = 0;
  const int64_t* offsets = nullptr;  // [rows + 1]
  Heads heads;
  const double* q = nullptr;  // [tokens, H, K], normalised here; token distance qkv_stride
  const double* k = nullptr;  // [tokens, H, K]
  const double* v = nullptr;  // [tokens, HV, V]
  int64_t qk_stride = 0;
  int64_t v_stride = 0;
  const double* g = nullptr;     // [tokens, HV]
  const double* beta = nullptr;  // [tokens, HV]
  double scale = 1;
  double* state = nullptr;  // [rows, HV, V, K], in place
  double* o = nullptr;      // [tokens, HV, V]
};

// q, k = x * rsqrt(sum x² + 1e-6);  S *= exp(g);  d = beta * (v - Sᵀ k);  S += k ⊗ d;
// o = scale * Sᵀ q
void Reference(const DeltaReference& p);

// Rows of equal length. y[t, c] = silu(sum over j of weight[c, j] * x[t - (W - 1) + j, c]), with
// history [rows, W - 1, channels] before the row's first token and its last W - 1 inputs after it.
struct ConvReference {
  int64_t rows = 0;
  int64_t length = 0;
  int64_t channels = 0;
  int width = 0;
  const double* x = nullptr;  // [rows * length, channels]; token distance x_stride
  int64_t x_stride = 0;
  const float* weight = nullptr;  // [channels, W]
  double* history = nullptr;      // in place
  double* y = nullptr;            // [rows * length, channels]
};
void Reference(const ConvReference& p);

// g = -exp(a_log) * softplus(a + dt_bias), beta = sigmoid(b).
struct GatingReference {
  int64_t tokens = 0;
  int value_heads = 0;
  const double* a = nullptr;  // [tokens, HV]; token distance stride
  const double* b = nullptr;
  int64_t stride = 0;
  const float* a_log = nullptr;    // [HV]
  const float* dt_bias = nullptr;  // [HV]
  double* g = nullptr;             // [tokens, HV]
  double* beta = nullptr;          // [tokens, HV]
};
void Reference(const GatingReference& p);

// o = o * rsqrt(mean of o² over V + eps) * weight * silu(z), in place.
struct NormReference {
  int64_t tokens = 0;
  int value_heads = 0;
  double eps = 1e-6;
  const double* z = nullptr;  // [tokens, HV, V]; token distance z_stride
  int64_t z_stride = 0;
  const float* weight = nullptr;  // [V]
  double* o = nullptr;            // [tokens, HV, V]
};
void Reference(const NormReference& p);

// The states of `rows` slots (on the device) as doubles [rows, elements].
Buffer GatherStates(const StatePool& pool, const int32_t* slots, int64_t rows, int64_t elements);

}  // namespace gdn::bench
