// The chunked form on tensor cores, for K = V = 128 and 16-bit q, k, v: in two kernels that run
// side by side, or fused in one (chunk_plan.h). With T the inverse of I + A, gamma the sums of g in
// the chunk, n the norms' inverses and d_i = exp(gamma_last - gamma_i):
//   prepare   X_j  = beta_j * sum over i >= j of n_i * d_i * T_ij * k_i
//             P_ij = beta_j * sum over j <= l <= i of scale * nq_i * n_l * (q_i · k_l)
//                                                     * exp(gamma_i - gamma_l) * T_lj
//   chain     Y_i  = v_i - exp(gamma_i) * n_i * S k_i
//             o_i  = scale * exp(gamma_i) * nq_i * S q_i + sum over j of P_ij * Y_j
//             S    = exp(gamma_last) * S + sum over j of Y_j ⊗ X_j
// X and P know nothing of the state, so all chunks' are made at once; from chunk to chunk there are
// but two products one after another, S k and Y X. Queries and keys of bf16 are never rounded; what
// a token adds to the state and to its own output by itself is rounded once.
//
// What prepare leaves lies in a workspace, by chunk, just as the tensor cores take it: in panels of
// 64 columns, in shared memory's permutation (RowsAreN and RowsAreK in warpgroup.cuh). Tokens
// beyond a row's end are zeros there. A chunk and head is marked ready once it is whole. The chain
// waits for the mark, and its blocks begin once all blocks of prepare run or have ended: so the
// wait ends, whatever else the device is at. Prepare waits for the chain a little, never for ever
// (chunk_ring.cuh).
//
// Fused, a block takes heads of rows from chunk to chunk by itself and nothing but the state passes
// through memory. That is the quicker where there are heads enough for all SMs. What is made of a
// chunk is then T itself and
//             R_ij = scale * nq_i * n_j * (q_i · k_j) * exp(gamma_i - gamma_j) for j <= i
// which is a third of the work of X and P, and the state has one product more to wait for:
//             W_i  = sum over j <= i of T_ij * beta_j * Y_j
//             o_i  = scale * exp(gamma_i) * nq_i * S q_i + sum over j of R_ij * W_j
//             S    = exp(gamma_last) * S + sum over j of n_j * d_j * W_j ⊗ k_j
//
// With somewhat more heads than SMs, where some blocks would take two of them and most but one, the
// kernel is launched in three phases: of each three heads two get on by half of their chunks in
// each, and between its halves a head's state lies in the pool.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/prefill/chunk_plan.h"
#include "kernels/cuda/prefill/segment_plan.h"
#include "kernels/ops/chunk_gated_delta_rule.h"
#include "kernels/ops/chunk_indices.h"

namespace gdn::cuda {

inline constexpr int kSm90Dim = 128;     // K and V
inline constexpr int kPrepareWarps = 4;  // that prepare a chunk and head
// Of a head, whose places are used again: more than are prepared at a time, and so few that those
// of 32 heads, of 24 KiB, stay in L2.
inline constexpr int kRingChunks = 16;

// What the chain multiplies a chunk's tokens by.
struct ChunkFactors {
  float for_y[kChunk];  // -exp(gamma_i) * n_i
  float decay;          // exp(gamma_last)
  float unused[3];
  float for_o[kChunk];  // scale * exp(gamma_i) * nq_i
};

// One record for each chunk and value head. Elements are of q's type.
struct ChunkWorkspace {
  void* x = nullptr;                // in panels  [chunks, HV] of [64, K]
  void* p = nullptr;                // one panel  [chunks, HV] of [64, 64]
  float* starts = nullptr;          // [segments, HV] of [V, K]: the states that they begin with
  float* maps = nullptr;            // [segments, HV] of [K, kMapStride]: their maps
  ChunkFactors* factors = nullptr;  // [chunks, HV]
  unsigned* ready = nullptr;        // [chunks, HV]: marks of what is whole (chunk_ring.cuh)
  unsigned* taken = nullptr;        // [HV]: chunks that the chain has done with
};

struct ChunkSm90Params {
  ChunkGatedDeltaRuleParams rule;
  Chunks chunks;
  ChunkWorkspace workspace;
  ChunkPlan plan;
  Segments segments = {};  // of each row (chunk_segments_sm90.h)
  int phase = 0;           // of a plan in phases
};

inline constexpr int kChunkSm90Alignment = 16;  // bytes: of tensors, tokens and slots

// Whether these kernels take `p`: its shape, types and strides; looks at no pointer. Not without
// l2norm: products of keys could leave fp16's range where the reference is finite.
bool ChunkSm90Takes(const ChunkGatedDeltaRuleParams& p);

bool ChunkSm90PointersAligned(const ChunkGatedDeltaRuleParams& p);

size_t ChunkSm90WorkspaceBytes(const Heads& heads, int64_t chunks);
ChunkWorkspace ChunkSm90Workspace(const Heads& heads, int64_t chunks, void* workspace);

cudaError_t ChunkPrepareSm90(const ChunkSm90Params& p, cudaStream_t stream);
// All that follows it: the chain of whole rows, or of segments and what brings these together.
cudaError_t ChunkChainSm90(const ChunkSm90Params& p, cudaStream_t stream);
// Instead of both, with o of q's type; `tokens` of all rows together.
cudaError_t ChunkFusedSm90(const ChunkSm90Params& p, int64_t tokens, cudaStream_t stream);

}  // namespace gdn::cuda
