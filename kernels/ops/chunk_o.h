#pragma once

#include "kernels/ops/chunk_indices.h"
#include "kernels/ops/operands.h"

namespace gdn {

// Within each chunk, h being the state before it:
//   o_i = scale * (exp(gamma_i) * hᵀ q_i
//                  + sum over j <= i of exp(gamma_i - gamma_j) * (q_i · k_j) * v_new_j)
// For PAD rows o is zero and nothing else is read.
struct ChunkOParams {
  Rows rows;  // has_initial_state is not looked at
  Chunks chunks;
  Heads heads;
  DType io = DType::kFp32;  // of q and k
  DType o_type = DType::kFp32;
  DType mid = DType::kFp32;  // of h and v_new
  const void* q = nullptr;   // [T, H, K]
  int64_t q_stride = 0;
  const void* k = nullptr;  // [T, H, K]
  int64_t k_stride = 0;
  const void* v_new = nullptr;   // [T, HV, V] dense
  const void* h = nullptr;       // [NT, HV, V, K]
  const float* gamma = nullptr;  // [T, HV]
  float scale = 1.0f;
  void* o = nullptr;  // [T, HV, V]
  int64_t o_stride = 0;
};

}  // namespace gdn
