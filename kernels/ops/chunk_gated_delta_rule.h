#pragma once

#include "kernels/ops/gated_delta_rule.h"

namespace gdn {

// The chunked form: l2norm, chunk_local_cumsum, chunk_scaled_dot_kkt, solve_tril, recompute_w_u,
// chunk_delta_h, chunk_o in this order.
struct ChunkGatedDeltaRuleParams : GatedDeltaRuleParams {};

}  // namespace gdn
