// The gated delta rule of the backend, each row in the form that suits its length.
#pragma once

#include <cstddef>

#include "kernels/cpu/kernels.h"
#include "kernels/ops/gated_delta_rule.h"

namespace gdn::cpu {

// Rows of more tokens than this take the chunked form.
inline constexpr int64_t kRecurrentTokens = 16;

void GatedDeltaRule(const GatedDeltaRuleParams& p);

// A tile's arrays in the calling thread's scratch.
ChunkTile ScratchTile(int key_dim, int value_dim);

}  // namespace gdn::cpu
