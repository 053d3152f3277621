#pragma once

#include "kernels/ops/chunk_indices.h"
#include "kernels/ops/operands.h"

namespace gdn {

// Within each chunk, for i > j:  A_ij = beta_i * (k_i · k_j) * exp(gamma_i - gamma_j); else 0.
struct ChunkScaledDotKktParams {
  Rows rows;  // slots and has_initial_state are not looked at
  Chunks chunks;
  Heads heads;
  DType io = DType::kFp32;
  const void* k = nullptr;  // [T, H, K] io, normalised already if it is to be
  int64_t k_stride = 0;
  const float* gamma = nullptr;  // [T, HV] from chunk_local_cumsum
  const float* beta = nullptr;   // [T, HV]
  float* a = nullptr;  // [T, HV, kChunk]: row i of its chunk's A; columns from the chunk's
                       // length on are 0
};

}  // namespace gdn
