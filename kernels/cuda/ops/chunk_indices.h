#pragma once

#include <cuda_runtime_api.h>

#include "kernels/ops/chunk_indices.h"

namespace gdn::cuda {

// Pointers of `p` are device pointers; chunk_indices must have room for all chunks. Enqueues on
// `stream` and returns at once. cudaErrorInvalidValue: a negative number of rows.
cudaError_t ChunkIndices(const ChunkIndicesParams& p, cudaStream_t stream);

}  // namespace gdn::cuda
