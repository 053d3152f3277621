#pragma once

#include <cuda_runtime_api.h>

#include "kernels/ops/fused_gdn_decode.h"

namespace gdn::cuda {

// Whether FusedGdnDecode takes the shape, types and alignment of `p`: K = V = 128, W = 4,
// R in {1, 2, 3, 4, 8}, H < 256, io bf16 or fp16, rows of mixed_qkv, z and o that begin on 16
// bytes, slots a multiple of 8 elements apart (in pools that begin on 16 bytes: not looked at).
// What it does not take runs as single ops.
bool FusedGdnDecodeTakes(const FusedGdnDecodeParams& p);

// Pointers of `p` are device pointers; enqueues on `stream`. A row's bits do not depend on the rows
// beside it. The arrays of p.rows are read before the kernel that precedes on `stream` has ended:
// it must not be what writes them. cudaErrorInvalidValue where FusedGdnDecodeTakes says no.
cudaError_t FusedGdnDecode(const FusedGdnDecodeParams& p, cudaStream_t stream);

}  // namespace gdn::cuda
