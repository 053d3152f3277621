#pragma once

#include <cuda_runtime_api.h>

#include "kernels/ops/chunk_local_cumsum.h"

namespace gdn::cuda {

// Pointers of `p` are device pointers. Enqueues on `stream` and returns at once.
// cudaErrorInvalidValue: sizes that are negative, or beyond 2^31 chunks or 2^21 columns.
cudaError_t ChunkLocalCumsum(const ChunkLocalCumsumParams& p, cudaStream_t stream);

}  // namespace gdn::cuda
