#pragma once

#include "kernels/ops/chunk_indices.h"
#include "kernels/ops/operands.h"

namespace gdn {

// Within each chunk, with M = (I + A)^-1:
//   w_i = sum_j M_ij * beta_j * exp(gamma_j) * k_j
//   u_i = sum_j M_ij * beta_j * v_j
struct RecomputeWUParams {
  Rows rows;  // slots and has_initial_state are not looked at
  Chunks chunks;
  Heads heads;
  DType io = DType::kFp32;   // of k and v
  DType mid = DType::kFp32;  // of w and u
  const void* k = nullptr;   // [T, H, K]
  int64_t k_stride = 0;
  const void* v = nullptr;  // [T, HV, V]
  int64_t v_stride = 0;
  const float* gamma = nullptr;    // [T, HV]
  const float* beta = nullptr;     // [T, HV]
  const float* inverse = nullptr;  // [T, HV, kChunk]
  void* w = nullptr;               // [T, HV, K] dense
  void* u = nullptr;               // [T, HV, V] dense
};

}  // namespace gdn
