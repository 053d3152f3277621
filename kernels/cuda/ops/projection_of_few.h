#pragma once

#include <cuda_runtime_api.h>

#include "kernels/cuda/ops/step_rows.h"
#include "kernels/ops/projection.h"

namespace gdn::cuda {

// Whether ProjectionOfFew takes `p`: up to 8 tokens, of few outputs up to 32; io bf16 or fp16, `in`
// a multiple of 32, `out` even, rows of x and w that begin on 16 bytes and of y on 4.
bool ProjectionOfFewTakes(const ProjectionParams& p);

// y = x · wᵀ at the speed at which w comes out of memory. Pointers of `p` are device pointers; w is
// read before the kernel that precedes on `stream` has ended, which must not be what writes it.
// Enqueues and returns at once. cudaErrorInvalidValue where ProjectionOfFewTakes says no.
cudaError_t ProjectionOfFew(const ProjectionParams& p, cudaStream_t stream);

// The same, and FinishRows of its output: every token is a row, without offsets.
cudaError_t ProjectionOfFew(const ProjectionParams& p, const FinishRowsParams& finish,
                            cudaStream_t stream);

}  // namespace gdn::cuda
