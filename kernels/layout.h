// What the tensors of a step are: the five input layouts and their widths.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/geometry.h"

namespace gdn {

// Values are those of gdn.v1.InputLayout.
enum class InputLayout : uint8_t {
  kHidden = 1,    // hidden_states
  kQkvBA = 2,     // mixed_qkv | b | a
  kQkvZBA = 3,    // mixed_qkv | z | b | a
  kQkvBetaG = 4,  // mixed_qkv | beta | g (beta and g always fp32)
  kQkvZBetaG = 5  // mixed_qkv | z | beta | g
};

// One tensor of an input: [tokens, width] elements of `type`.
struct InputTensor {
  enum class Kind : uint8_t { kHidden, kMixedQkv, kZ, kB, kA, kBeta, kG } kind;
  int64_t width;
  DType type;

  size_t row_bytes() const { return static_cast<size_t>(width) * SizeOf(type); }
};

// The tensors of `layout` in wire order: one after another, each [tokens, width], without gaps.
inline std::vector<InputTensor> InputTensors(const Geometry& g, InputLayout layout, DType io) {
  using Kind = InputTensor::Kind;
  if (layout == InputLayout::kHidden) return {{Kind::kHidden, g.hidden_size, io}};
  std::vector<InputTensor> tensors = {{Kind::kMixedQkv, g.conv_dim(), io}};
  if (layout == InputLayout::kQkvZBA || layout == InputLayout::kQkvZBetaG) {
    tensors.push_back({Kind::kZ, g.value_size(), io});
  }
  if (layout == InputLayout::kQkvBA || layout == InputLayout::kQkvZBA) {
    tensors.push_back({Kind::kB, g.value_heads, io});
    tensors.push_back({Kind::kA, g.value_heads, io});
  } else {
    tensors.push_back({Kind::kBeta, g.value_heads, DType::kFp32});
    tensors.push_back({Kind::kG, g.value_heads, DType::kFp32});
  }
  return tensors;
}

// Bytes of input a token takes in `layout`.
inline size_t InputRowBytes(const Geometry& g, InputLayout layout, DType io) {
  size_t bytes = 0;
  for (const InputTensor& t : InputTensors(g, layout, io)) bytes += t.row_bytes();
  return bytes;
}

// Elements of output a token gives: hidden_size, or HV * V where the output is o.
inline int64_t OutputWidth(const Geometry& g, InputLayout layout) {
  return layout == InputLayout::kHidden ? g.hidden_size : g.value_size();
}

inline size_t OutputRowBytes(const Geometry& g, InputLayout layout, DType io) {
  return static_cast<size_t>(OutputWidth(g, layout)) * SizeOf(io);
}

}  // namespace gdn
