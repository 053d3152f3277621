#pragma once

#include <cuda_runtime_api.h>

#include "kernels/ops/rmsnorm_gated.h"

namespace gdn::cuda {

// Any value_dim. Pointers of `p` are device pointers. Enqueues on `stream` and returns at once.
// cudaErrorInvalidValue: sizes that are negative, or beyond 2^31 tokens or 65535 heads.
cudaError_t RmsNormGated(const RmsNormGatedParams& p, cudaStream_t stream);

}  // namespace gdn::cuda
