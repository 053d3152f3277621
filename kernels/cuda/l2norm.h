#pragma once

#include <cuda_runtime_api.h>

#include "kernels/ops/l2norm.h"

namespace gdn::cuda {

// Pointers of `p` are device pointers. Enqueues on `stream` and returns at once.
cudaError_t L2Norm(const L2NormParams& p, cudaStream_t stream);

}  // namespace gdn::cuda
