// One step at one layer, as a backend takes it: rows of tokens, their slots, and the requests whose
// bytes they come from. Built per step; owns nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "kernels/layout.h"

namespace gdn {

// Names no slot. Every negative slot is a row that is a no-op: its state is neither read nor
// written and its output is exactly zero.
inline constexpr int32_t kPadSlotId = -1;

// The tensors of one request. Merged requests lie one after another in the batch, so a part holds
// the tokens [first_token, first_token + tokens) of it.
struct BatchPart {
  int64_t first_token = 0;
  int64_t tokens = 0;
  // The input bytes in pieces, as they came from the wire; together they are the tensors of the
  // layout, each [tokens, width]. Empty with synthetic_seed.
  std::span<const std::string_view> input;
  uint64_t synthetic_seed = 0;  // not 0: uniform in [-1, 1) made by the backend from this seed
  std::byte* output = nullptr;  // [tokens, output width]; null: the answer is not wanted
  // The backend's device reaches these bytes itself: memory that it gave out or registered, or its
  // own. The host may not be able to read them.
  bool direct_input = false;
  bool direct_output = false;
  // Of a request that runs in pieces, the tokens before and after this one. They count for what is
  // made from a seed, which is what the whole request would have.
  int64_t tokens_before = 0;
  int64_t tokens_after = 0;
};

// Rows are packed: row i holds tokens [offsets[i], offsets[i + 1]). Decode is the case where every
// length is 1. Slots are < the pool's size and distinct (checked by the caller) or negative.
struct Batch {
  int layer = 0;  // index into the layers hosted, 0-based
  InputLayout layout = InputLayout::kHidden;
  std::span<const int64_t> offsets;            // [rows + 1], offsets[0] = 0, ascending
  std::span<const int32_t> slots;              // [rows]
  std::span<const uint8_t> has_initial_state;  // [rows]; 0: conv and ssm state count as zero,
                                               // whatever the slot holds
  // [rows]; 1: the row's output also goes to the answer pool at (layer, slot), tokens 0..length
  std::span<const uint8_t> keep_answer;
  std::span<const BatchPart> parts;  // ascending, together all tokens

  int64_t rows() const { return static_cast<int64_t>(slots.size()); }
  int64_t tokens() const { return offsets.empty() ? 0 : offsets.back(); }
  int64_t length(int64_t row) const { return offsets[row + 1] - offsets[row]; }
};

// What became of a row.
enum class RowFault : uint8_t {
  kNone,
  kNonFiniteInput,  // NaN or infinity in its input: its state is as it was, its output undefined
  kOverflow,        // arithmetic on finite input overflowed: its state is undefined
  kDevice,          // a device failure: its state is undefined
};

}  // namespace gdn
