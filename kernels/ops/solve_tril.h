#pragma once

#include "kernels/ops/chunk_indices.h"
#include "kernels/ops/operands.h"

namespace gdn {

// inverse = (I + A)^-1 for each chunk and head; A is strictly lower triangular, the inverse lower
// with ones on its diagonal.
struct SolveTrilParams {
  Rows rows;  // slots and has_initial_state are not looked at
  Chunks chunks;
  int value_heads = 0;       // HV
  const float* a = nullptr;  // [T, HV, kChunk]
  float* inverse = nullptr;  // [T, HV, kChunk]; may be a. Columns from the chunk's length on are 0
};

}  // namespace gdn
