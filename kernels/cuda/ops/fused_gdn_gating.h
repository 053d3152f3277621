#pragma once

#include <cuda_runtime_api.h>

#include "kernels/ops/fused_gdn_gating.h"

namespace gdn::cuda {

// Pointers of `p` are device pointers. Enqueues on `stream` and returns at once.
// cudaErrorInvalidValue: sizes that are negative, or beyond 2^31 tokens.
cudaError_t FusedGdnGating(const FusedGdnGatingParams& p, cudaStream_t stream);

}  // namespace gdn::cuda
