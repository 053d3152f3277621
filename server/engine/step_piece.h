// Where a prefill is cut, so that decodes run between its pieces.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "kernels/layout.h"
#include "server/wire/step.h"

namespace gdn {

// A place in a step's tokens: those of the rows before `row`, and the first `token` of it.
struct StepCursor {
  size_t row = 0;
  uint32_t token = 0;

  bool operator==(const StepCursor&) const = default;
};

struct CutRules {
  uint32_t tokens = 0;  // of a piece; 0: nothing is cut
  uint32_t whole = 0;   // rows up to this length stay in one piece
};

// Whether a step runs in more than one piece. Not where the host does not look at its input, which
// is checked at copy-in then.
bool IsCut(StepKind kind, const StepRequest& request, const CutRules& rules);

// The end of the piece that begins at `from`: as many tokens as there is room for, and a row or
// more where the first one must stay whole. Rows are cut at multiples of 64 tokens, the chunk of
// the kernels (and of what divides `tokens` and 64), so that chunks are those of the whole.
StepCursor EndOfPiece(const StepRequest& request, StepCursor from, const CutRules& rules);

// The tokens before `to`.
int64_t TokensBefore(const StepRequest& request, StepCursor to);

// The bytes of tokens [first, first + count) of each of the request's tensors.
std::vector<std::string_view> InputOf(const StepRequest& request,
                                      const std::vector<InputTensor>& tensors, int64_t first,
                                      int64_t count);

}  // namespace gdn
