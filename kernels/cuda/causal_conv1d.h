#pragma once

#include <cuda_runtime_api.h>

#include "kernels/ops/causal_conv1d.h"
#include "kernels/ops/chunk_indices.h"

namespace gdn::cuda {

// Pointers of `p` and `chunks` are device pointers. Both enqueue on `stream` and return at once.
// cudaErrorInvalidValue: W outside 2..4, a conv pool of another type than io, negative sizes, or
// more blocks than a grid holds (2^31: some 2^40 elements).

// `chunks` are those of p.rows.
cudaError_t CausalConv1dFn(const CausalConv1dFnParams& p, const Chunks& chunks,
                           cudaStream_t stream);

cudaError_t CausalConv1dUpdate(const CausalConv1dUpdateParams& p, cudaStream_t stream);

}  // namespace gdn::cuda
