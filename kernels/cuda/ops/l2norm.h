#pragma once

#include <cuda_runtime_api.h>

#include "kernels/ops/l2norm.h"

namespace gdn::cuda {

// Any dim. Pointers of `p` are device pointers. Enqueues on `stream` and returns at once.
// cudaErrorInvalidValue: sizes that are negative, or beyond 2^31 tokens or 65535 heads.
cudaError_t L2Norm(const L2NormParams& p, cudaStream_t stream);

}  // namespace gdn::cuda
