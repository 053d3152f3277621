#pragma once

#include "kernels/ops/operands.h"

namespace gdn {

// For each row and channel c, history before the row's first token coming from its slot:
//   y[t, c] = activation(bias[c] + sum over j < W of weight[c, j] * x[t - (W - 1) + j, c])
// with products and sum in fp32 or better. The slot then holds the last W - 1 inputs, oldest first.
// PAD rows: y is zero, nothing else is touched.
struct CausalConv1dParams {
  Rows rows;
  int64_t channels = 0;  // conv_dim
  int width = 0;         // W, 2..4
  DType io = DType::kFp32;
  Activation activation = Activation::kNone;
  const void* x = nullptr;  // [T, channels]
  int64_t x_stride = 0;
  const float* weight = nullptr;  // [channels, W]
  const float* bias = nullptr;    // [channels] or null
  StatePool conv;                 // a slot: [W - 1, channels], of type io
  void* y = nullptr;              // [T, channels]
  int64_t y_stride = 0;
};

// Prefill: rows of any length.
struct CausalConv1dFnParams : CausalConv1dParams {};

// Decode: every row has one token, so rows.offsets is not looked at.
struct CausalConv1dUpdateParams : CausalConv1dParams {};

}  // namespace gdn
