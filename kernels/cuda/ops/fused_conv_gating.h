#pragma once

#include <cuda_runtime_api.h>

#include "kernels/ops/chunk_indices.h"
#include "kernels/ops/fused_conv_gating.h"

namespace gdn::cuda {

// Pointers of `p` and `chunks` are device pointers, `chunks` those of p.conv.rows. Enqueues on
// `stream` and returns at once. The convolution's weights, the chunks and the rows' offsets are
// read before the kernel that precedes on the stream has ended: it must not be what writes them.
// cudaErrorInvalidValue: what CausalConv1dFn or FusedGdnGating refuses, and gates of another type
// than the convolution's.
cudaError_t FusedConvGating(const FusedConvGatingParams& p, const Chunks& chunks,
                            cudaStream_t stream);

}  // namespace gdn::cuda
