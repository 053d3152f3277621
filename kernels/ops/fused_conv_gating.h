#pragma once

#include "kernels/ops/causal_conv1d.h"
#include "kernels/ops/fused_gdn_gating.h"

namespace gdn {

// What a prefill does between its projections and the delta rule: the convolution and the gates,
// each as its own op computes it, bit for bit. The norms of q and k are not among it: the delta
// rule has the rows that it normalises in registers anyway.
struct FusedConvGatingParams {
  CausalConv1dFnParams conv;
  FusedGdnGatingParams gating;  // without tokens: the gates are given
};

}  // namespace gdn
