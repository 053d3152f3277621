// What prepare multiplies the tokens of a chunk by: norms, beta and decays.
#pragma once

#include <type_traits>

#include "kernels/cuda/prefill/chunk_decay.cuh"
#include "kernels/cuda/prefill/chunk_items.cuh"
#include "kernels/cuda/prefill/chunk_prepare_shared.cuh"

namespace gdn::cuda::prepare {

// Leaves the factors of the warp's keys in shared memory and what the chain needs of them in the
// workspace. kk are the products of its rows with themselves; keys of fp16 are normalised already.
template <typename T>
__device__ __forceinline__ void StoreKeyFactors(const ChunkSm90Params& p, const Item& item,
                                                int warp, const TokenDecays& decays,
                                                const TileSum& kk, Shared& shared) {
  const int lane = threadIdx.x % 32;
  const int head = lane / kTileDim;
  const int token = warp * kTileDim + lane % kTileDim;
  const float n = std::is_same_v<T, __half> ? 1.0f : InverseNorm(SquareOf(kk));
  if (head == 0) shared.k_norm[token] = n;
  shared.column[head][token] = n * decays.column;
  shared.decay[head][token] = n * decays.end;
  if (head >= item.heads) return;
  ChunkFactors& factors = p.workspace.factors[item.record(p, head)];
  factors.for_y[token] = -decays.begin * (std::is_same_v<T, __half> ? shared.k_scale[token] : n);
  if (token == kChunk - 1) factors.decay = decays.begin;
}

// The same of its queries.
__device__ __forceinline__ void StoreQueryFactors(const ChunkSm90Params& p, const Item& item,
                                                  int warp, const TokenDecays& decays, float qq,
                                                  Shared& shared) {
  const int lane = threadIdx.x % 32;
  const int head = lane / kTileDim;
  const int token = warp * kTileDim + lane % kTileDim;
  const float q_scale = p.rule.scale * InverseNorm(qq);
  if (head == 0) shared.q_scale[token] = q_scale;
  if (head >= item.heads) return;
  p.workspace.factors[item.record(p, head)].for_o[token] = decays.begin * q_scale;
}

// Of the head's sums of the warp's rows.
__device__ __forceinline__ Decay DecayOf(const Shared& shared, int head, int warp, float2 rows) {
  return Decay(shared.gamma[head], shared.column[head], shared.k_norm, warp, rows);
}

}  // namespace gdn::cuda::prepare
