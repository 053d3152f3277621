// The weights of one layer on the host, in the one layout that every backend takes. Views: whoever
// loads them keeps the bytes until Backend::LoadLayer returns, and may drop them then.
#pragma once

#include "kernels/tensor.h"

namespace gdn {

// Matrices are in the io type, small vectors in fp32. in_proj rows are q | k | v | z | b | a (heads
// in order, never interleaved). Without in_proj and out_proj only the projected layouts are served.
struct LayerWeights {
  TensorView in_proj;      // [conv_dim + HV*V + 2*HV, hidden] or empty
  TensorView out_proj;     // [hidden, HV*V] or empty
  TensorView conv_weight;  // [conv_dim, W] fp32; empty where W = 0
  TensorView conv_bias;    // [conv_dim, 1] fp32 or empty
  TensorView a_log;        // [HV, 1] fp32
  TensorView dt_bias;      // [HV, 1] fp32
  TensorView norm;         // [V, 1] fp32
};

}  // namespace gdn
