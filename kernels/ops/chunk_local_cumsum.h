#pragma once

#include <cstdint>

#include "kernels/ops/chunk_indices.h"
#include "kernels/ops/operands.h"

namespace gdn {

// gamma_i = sum of g_j over j <= i in the chunk of i, by column. The scalar form has a column for
// each value head (dim = 1), the vector form one for each element of each head.
struct ChunkLocalCumsumParams {
  Rows rows;
  Chunks chunks;
  int heads = 0;
  int dim = 1;
  const float* g = nullptr;  // [T, heads, dim]
  float* gamma = nullptr;    // [T, heads, dim]; may be g
};

}  // namespace gdn
