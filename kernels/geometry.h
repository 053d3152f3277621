// The shape of a Gated DeltaNet layer, fixed at start and equal at every layer of a server.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

namespace gdn {

// Element type of a tensor in memory: little-endian, dense.
enum class DType : uint8_t { kFp32, kBf16, kFp16 };

constexpr size_t SizeOf(DType type) { return type == DType::kFp32 ? 4 : 2; }

// Applied to the convolution's output.
enum class Activation : uint8_t { kNone, kSilu };

// Applied to z in the gated norm.
enum class Gate : uint8_t { kSilu, kSigmoid };

// Names follow the literature: H key heads of K, HV value heads of V, a convolution of width W.
// Value head i reads key head i / R with R = HV / H; R is any integer >= 1.
struct Geometry {
  int hidden_size = 0;
  int key_heads = 0;    // H
  int value_heads = 0;  // HV
  int key_dim = 0;      // K
  int value_dim = 0;    // V
  int conv_width = 4;   // W; 0: q, k and v come convolved
  Activation conv_activation = Activation::kSilu;
  Gate gate = Gate::kSilu;
  bool qk_l2norm = true;   // q, k = x * rsqrt(sum x^2 + 1e-6) over K
  float norm_eps = 1e-6f;  // of the gated norm

  int64_t key_size() const { return int64_t{key_heads} * key_dim; }        // H * K
  int64_t value_size() const { return int64_t{value_heads} * value_dim; }  // HV * V
  int64_t conv_dim() const { return 2 * key_size() + value_size(); }       // q | k | v
  int64_t in_proj_size() const { return conv_dim() + value_size() + int64_t{2} * value_heads; }
  int group() const { return value_heads / key_heads; }  // R
  float scale() const { return 1.0f / std::sqrt(static_cast<float>(key_dim)); }
  int64_t ssm_elements() const { return value_size() * key_dim; }  // [HV][V][K]
  int64_t conv_elements() const {                                  // [W-1][conv_dim]
    return conv_width == 0 ? 0 : (conv_width - 1) * conv_dim();
  }

  friend bool operator==(const Geometry&, const Geometry&) = default;
};

}  // namespace gdn
