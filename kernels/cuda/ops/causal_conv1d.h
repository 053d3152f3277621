#pragma once

#include <cuda_runtime_api.h>

#include "kernels/ops/causal_conv1d.h"
#include "kernels/ops/chunk_indices.h"

namespace gdn::cuda {

// Pointers of `p` and `chunks` are device pointers. Both enqueue on `stream` and return at once.
// cudaErrorInvalidValue: W outside 2..4, a conv pool of another type than io, sizes that are
// negative, more than 2^24 chunks (2^30 tokens) or updates beyond what a grid holds (2^31 blocks).

// `chunks` are those of p.rows. Weights, chunks and the rows' offsets are read before the kernel
// that precedes on the stream has ended: it must not be what writes them.
cudaError_t CausalConv1dFn(const CausalConv1dFnParams& p, const Chunks& chunks,
                           cudaStream_t stream);

cudaError_t CausalConv1dUpdate(const CausalConv1dUpdateParams& p, cudaStream_t stream);

}  // namespace gdn::cuda
