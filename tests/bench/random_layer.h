// A layer of random weights, the same in every run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "kernels/backend.h"
#include "kernels/dtype.h"

namespace gdn {

// Uniform in [-scale, scale), the same in every run.
class Random {
 public:
  float operator()(float scale) {
    state_ = state_ * 6364136223846793005 + 1442695040888963407;
    return (static_cast<float>(state_ >> 40) / (1 << 23) - 1.0f) * scale;
  }

 private:
  uint64_t state_ = 1;
};

inline std::vector<std::byte> Tensor(Random& random, DType type, int64_t n, float scale) {
  std::vector<std::byte> data(static_cast<size_t>(n) * SizeOf(type));
  for (int64_t i = 0; i < n; ++i) Store(data.data(), type, i, random(scale));
  return data;
}

inline void Require(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  std::exit(1);
}

inline void LoadRandomLayer(const BackendShape& shape, Backend& backend) {
  const Geometry& g = shape.geometry;
  Random random;
  const auto in = Tensor(random, shape.io, g.in_proj_size() * g.hidden_size, 0.04f);
  const auto out = Tensor(random, shape.io, g.hidden_size * g.value_size(), 0.03f);
  const auto conv = Tensor(random, DType::kFp32, g.conv_dim() * g.conv_width, 0.5f);
  const auto a_log = Tensor(random, DType::kFp32, g.value_heads, 1.0f);
  const auto dt_bias = Tensor(random, DType::kFp32, g.value_heads, 1.0f);
  const auto norm = Tensor(random, DType::kFp32, g.value_dim, 1.0f);
  Require(backend.LoadLayer(
      0, {.in_proj = {in.data(), shape.io, {g.in_proj_size(), g.hidden_size}},
          .out_proj = {out.data(), shape.io, {g.hidden_size, g.value_size()}},
          .conv_weight = {conv.data(), DType::kFp32, {g.conv_dim(), g.conv_width}},
          .conv_bias = {},
          .a_log = {a_log.data(), DType::kFp32, {g.value_heads, 1}},
          .dt_bias = {dt_bias.data(), DType::kFp32, {g.value_heads, 1}},
          .norm = {norm.data(), DType::kFp32, {g.value_dim, 1}}}));
}

}  // namespace gdn
