// Operands that several ops share. Plain structs of pointers and sizes, owning nothing, for host
// and device code alike.
//
// Shapes are written [tokens, heads, dim], outermost first; T is the number of tokens of all rows
// together, N the number of rows. A `*_stride` is the distance of one token from the next, in
// elements; within a token elements are dense. Pointers must not overlap unless an op says so.
#pragma once

#include <cstdint>

#include "kernels/geometry.h"

namespace gdn {

// Tokens in a chunk of the chunked form. Chunks begin anew with every row.
inline constexpr int kChunk = 64;

// Added under the square root by the l2 normalisation of q and k.
inline constexpr float kL2NormEps = 1e-6f;

struct Heads {
  int key_heads = 0;    // H
  int value_heads = 0;  // HV, a multiple of H; value head i uses key head i / (HV / H)
  int key_dim = 0;      // K
  int value_dim = 0;    // V
};

// The rows of a batch, packed one after another.
struct Rows {
  int64_t count = 0;                 // N
  const int64_t* offsets = nullptr;  // [N + 1], ascending, offsets[0] = 0; lengths may be 0
  const int32_t* slots = nullptr;    // [N]; negative: PAD. null: row i has slot i
  const uint8_t* has_initial_state = nullptr;  // [N]; 0: the slot counts as zero, whatever it
                                               // holds. null: every row has one
  constexpr int64_t tokens() const { return count == 0 ? 0 : offsets[count]; }
  constexpr int64_t slot(int64_t row) const { return slots == nullptr ? row : slots[row]; }
  constexpr bool has_state(int64_t row) const {
    return has_initial_state == nullptr || has_initial_state[row] != 0;
  }
};

// State of one layer by slot: slot s begins at element s * slot_stride, computed in 64 bits. With
// null data every row starts from zero and its final state is dropped. PAD rows and rows without
// tokens neither read nor write.
struct StatePool {
  void* data = nullptr;
  DType type = DType::kFp32;
  int64_t slot_stride = 0;
};

}  // namespace gdn
