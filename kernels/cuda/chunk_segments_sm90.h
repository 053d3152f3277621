// What lies between the chain of the first segment and that of the others (chunk_sm90.h).
#pragma once

#include "kernels/cuda/chunk_sm90.h"

namespace gdn::cuda {

cudaError_t ChunkTracksSm90(const ChunkSm90Params& p, cudaStream_t stream);
cudaError_t ChunkComposeSm90(const ChunkSm90Params& p, cudaStream_t stream);

}  // namespace gdn::cuda
