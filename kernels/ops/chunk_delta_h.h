#pragma once

#include "kernels/ops/chunk_indices.h"
#include "kernels/ops/operands.h"

namespace gdn {

// From chunk to chunk of each row, with last = the chunk's last token and S in fp32 or better:
//   h       = S
//   v_new_i = u_i - Sᵀ w_i
//   S       = exp(gamma_last) * S + sum_i k_i ⊗ (v_new_i * exp(gamma_last - gamma_i))
// S starts from the row's slot and ends there. For PAD rows h and v_new are not written.
struct ChunkDeltaHParams {
  Rows rows;
  Chunks chunks;
  Heads heads;
  DType io = DType::kFp32;   // of k
  DType mid = DType::kFp32;  // of w, u, v_new and h
  const void* k = nullptr;   // [T, H, K]
  int64_t k_stride = 0;
  const void* w = nullptr;       // [T, HV, K] dense
  const void* u = nullptr;       // [T, HV, V] dense
  const float* gamma = nullptr;  // [T, HV]
  StatePool ssm;                 // a slot: [HV, V, K]
  void* h = nullptr;             // [NT, HV, V, K]: the state before each chunk
  void* v_new = nullptr;         // [T, HV, V] dense; may be u
};

}  // namespace gdn
