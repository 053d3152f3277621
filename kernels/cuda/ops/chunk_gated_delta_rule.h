#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "kernels/ops/chunk_gated_delta_rule.h"
#include "kernels/ops/chunk_indices.h"

namespace gdn::cuda {

// Bytes of `workspace` that ChunkGatedDeltaRule needs for a batch of `tokens` tokens in `chunks`
// chunks. Looks at no pointer of `p`; grows with `tokens` and `chunks`.
size_t ChunkGatedDeltaRuleWorkspaceBytes(const ChunkGatedDeltaRuleParams& p, int64_t tokens,
                                         int64_t chunks);

// The chunked form over all rows. Pointers of `p` and `chunks` are device pointers; `tokens` is the
// number of tokens of all rows together, `chunks.count` of their chunks. `workspace` is aligned to
// 256 bytes; its content is of no matter before and after. Enqueues on `stream` and returns at
// once; fit for capture into a graph. With 16-bit q, k, v and K = V = 128 on strides of whole 16
// bytes, tensors must be aligned to 16 bytes too (cudaErrorMisalignedAddress).
cudaError_t ChunkGatedDeltaRule(const ChunkGatedDeltaRuleParams& p, const Chunks& chunks,
                                int64_t tokens, void* workspace, cudaStream_t stream);

}  // namespace gdn::cuda
