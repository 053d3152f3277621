#pragma once

#include <cuda_runtime_api.h>

#include "kernels/ops/chunk_o.h"

namespace gdn::cuda {

// Pointers of `p` are device pointers. Enqueues on `stream` and returns at once. K and V are
// multiples of 32 up to 256; sums are kept in fp32.
cudaError_t ChunkO(const ChunkOParams& p, cudaStream_t stream);

}  // namespace gdn::cuda
