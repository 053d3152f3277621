// A small layer with random weights, for tests of whole layers.
#pragma once

#include <cmath>

#include "kernels/backend.h"
#include "tests/testing/cases.h"
#include "tests/testing/tensor.h"

namespace gdn::test {

// R = 2, K and V unequal, hidden different from HV * V.
inline Geometry SmallGeometry() {
  return {.hidden_size = 96,
          .key_heads = 2,
          .value_heads = 4,
          .key_dim = 64,
          .value_dim = 96,
          .conv_width = 4};
}

inline BackendShape SmallShape() {
  return {.geometry = SmallGeometry(),
          .layers = 2,
          .slots = 8,
          .max_rows = 16,
          .max_tokens = 512,
          .max_decode_tokens = 2};
}

// Weights of a layer, sized so that every stage has numbers of order one.
class RandomLayer {
 public:
  RandomLayer(uint64_t seed, const BackendShape& s) : g_(s.geometry) {
    Rng rng(seed);
    if (s.projections) {
      in_proj_ = Tensor::Normal(rng, s.io, g_.in_proj_size() * g_.hidden_size,
                                1.0f / std::sqrt(static_cast<float>(g_.hidden_size)));
      out_proj_ = Tensor::Normal(rng, s.io, g_.hidden_size * g_.value_size(),
                                 1.0f / std::sqrt(static_cast<float>(g_.value_size())));
    }
    if (g_.conv_width > 0) {
      conv_weight_ =
          ConvInputs::Rounded(Tensor::Normal(rng, s.io, g_.conv_dim() * g_.conv_width, 0.5f));
      conv_bias_ = ConvInputs::Rounded(Tensor::Normal(rng, s.io, g_.conv_dim(), 0.2f));
      // Keeps q · k away from 0, where the gated norm would blow up what rounding leaves of it.
      for (int64_t c = 0; c < 2 * g_.key_size(); ++c) conv_bias_.set(c, 1.0f);
    }
    a_log_ = Tensor::Uniform(rng, DType::kFp32, g_.value_heads, -3.0f, 1.0f);
    dt_bias_ = Tensor::Uniform(rng, DType::kFp32, g_.value_heads, -4.0f, 1.0f);
    norm_ = Tensor::Uniform(rng, DType::kFp32, g_.value_dim, 0.5f, 1.5f);
  }

  // Valid while this lives.
  LayerWeights weights() const {
    LayerWeights w;
    if (in_proj_.size() > 0) {
      w.in_proj = in_proj_.view(g_.in_proj_size(), g_.hidden_size);
      w.out_proj = out_proj_.view(g_.hidden_size, g_.value_size());
    }
    if (g_.conv_width > 0) {
      w.conv_weight = conv_weight_.view(g_.conv_dim(), g_.conv_width);
      w.conv_bias = conv_bias_.view(g_.conv_dim(), 1);
    }
    w.a_log = a_log_.view(g_.value_heads, 1);
    w.dt_bias = dt_bias_.view(g_.value_heads, 1);
    w.norm = norm_.view(g_.value_dim, 1);
    return w;
  }

  // [in_proj_size, hidden_size]
  Tensor& in_proj() { return in_proj_; }

 private:
  Geometry g_;
  Tensor in_proj_, out_proj_, conv_weight_, conv_bias_, a_log_, dt_bias_, norm_;
};

}  // namespace gdn::test
