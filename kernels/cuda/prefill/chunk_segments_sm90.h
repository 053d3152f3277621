// A long row of few heads is cut into segments (segment_plan.h). What a segment makes of the state
// S that it begins with is S * M + L, and its map M and its part L, of fp32 like the state, are
// found before S is:
//   chain     of the first segment
//   tracks    of the others but the last, beside it, and without output: the chain from zero, which
//             ends with L, and from the unit matrix with v = 0, which ends with M
//   compose   the state after a segment = the state before it * M + L, one segment after another
//   chain     of all segments but the first, side by side
// Each begins once the blocks of the one before run or have ended, and waits for no later one.
#pragma once

#include "kernels/cuda/prefill/chunk_sm90.h"

namespace gdn::cuda {

cudaError_t ChunkTracksSm90(const ChunkSm90Params& p, cudaStream_t stream);
cudaError_t ChunkComposeSm90(const ChunkSm90Params& p, cudaStream_t stream);

}  // namespace gdn::cuda
