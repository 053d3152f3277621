// The chunked form on tensor cores, for K = V = 128 and 16-bit q, k, v. Three launches:
//   prepare   per chunk and key head: l2norm of k, cumulative gates, A, its inverse, w and u
//   delta_h   per row, value head and slice of V: the state from chunk to chunk, h and v_new
//   o         per chunk and key head: l2norm of q, o
// What they hand one another lies in a workspace, by chunk, and just as the tensor cores take it:
// in tiles (tile.cuh), or in panels of 64 columns, in shared memory's permutation (RowsAreN and
// RowsAreK in ptx.cuh). So every access is 16 bytes a lane and contiguous, no operand is transposed
// on its way, and tokens beyond a row's end are zeros there.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "kernels/ops/chunk_gated_delta_rule.h"
#include "kernels/ops/chunk_indices.h"

namespace gdn::cuda {

inline constexpr int kSm90Dim = 128;  // K and V

// Gates of one chunk and head. Tokens beyond the row's end have gamma_last.
struct ChunkGates {
  float gamma[kChunk];  // gamma_i / ln 2: exponents are of 2
  float decay[kChunk];  // exp(gamma_last - gamma_i)
};

// One record for each chunk and value head, k for each chunk and key head. Elements are of q's
// type, to which w, u, h and v_new are rounded. bf16 keys are not normalised: their norms are
// folded into w, u and v_new, which here are norm_i times the reference's, and so cost no rounding;
// fp16 has no range for that, its keys are normalised (norm_i = 1). With strong decay a state is
// then rounded once, where u is: the last token's v_new is u and its decay 1.
struct ChunkWorkspace {
  void* w = nullptr;            // -w, in panels  [chunks, HV] of [64, K]
  void* u = nullptr;            // u, then v_new, transposed, in tiles  [chunks, HV] of [V, 64]
  void* h = nullptr;            // in tiles  [chunks, HV] of [V, K]
  void* k = nullptr;            // in panels  [chunks, H] of [64, K]
  ChunkGates* gates = nullptr;  // [chunks, HV]
};

struct ChunkSm90Params {
  ChunkGatedDeltaRuleParams rule;
  Chunks chunks;
  ChunkWorkspace workspace;
};

inline constexpr int kChunkSm90Alignment = 16;  // bytes: of tensors, tokens and slots

// Whether `p` has the shape, types and strides these kernels take; looks at no pointer. fp16
// without l2norm is not among them: w could leave fp16's range where the reference is finite.
bool ChunkSm90Takes(const ChunkGatedDeltaRuleParams& p);

bool ChunkSm90PointersAligned(const ChunkGatedDeltaRuleParams& p);

size_t ChunkSm90WorkspaceBytes(const Heads& heads, int64_t chunks);
ChunkWorkspace ChunkSm90Workspace(const Heads& heads, int64_t chunks, void* workspace);

cudaError_t ChunkPrepareSm90(const ChunkSm90Params& p, cudaStream_t stream);
cudaError_t ChunkDeltaHSm90(const ChunkSm90Params& p, cudaStream_t stream);
cudaError_t ChunkOSm90(const ChunkSm90Params& p, cudaStream_t stream);

}  // namespace gdn::cuda
