#pragma once

#include <cuda_runtime_api.h>

#include "kernels/ops/solve_tril.h"

namespace gdn::cuda {

// Pointers of `p` are device pointers. Enqueues on `stream` and returns at once. Sums are
// kept in fp32.
cudaError_t SolveTril(const SolveTrilParams& p, cudaStream_t stream);

}  // namespace gdn::cuda
