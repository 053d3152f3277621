#pragma once

#include <cuda_runtime_api.h>

#include "kernels/ops/fused_recurrent_gated_delta_rule.h"

namespace gdn::cuda {

// For every geometry; rows run side by side, their tokens one after another. Deterministic, and a
// row's bits do not depend on the rows beside it. Pointers of `p` are device pointers. Enqueues on
// `stream` and returns at once. cudaErrorInvalidValue: K above 256 or no multiple of 8, HV no
// multiple of H, an fp16 state, negative sizes, more than 2^31 blocks, or heads of q and k and
// states that do not begin at multiples of 4 elements.
cudaError_t FusedRecurrentGatedDeltaRule(const FusedRecurrentGatedDeltaRuleParams& p,
                                         cudaStream_t stream);

}  // namespace gdn::cuda
