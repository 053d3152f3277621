// The two kernels behind FusedGdnDecode. Both take what FusedGdnDecodeTakes says.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/ops/fused_gdn_decode.h"

namespace gdn::cuda::decode {

// A block for each value head of each row: shortest for few rows; rows of any length.
cudaError_t LaunchCluster(const FusedGdnDecodeParams& p, cudaStream_t stream);

// As many blocks as the device holds, through which the states stream: for rows of one token, three
// of them or more.
cudaError_t LaunchStream(const FusedGdnDecodeParams& p, cudaStream_t stream);

}  // namespace gdn::cuda::decode
