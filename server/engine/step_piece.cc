#include "server/engine/step_piece.h"

#include <numeric>

#include "kernels/pieces.h"

namespace gdn {
namespace {

constexpr uint32_t kKernelChunk = 64;

}  // namespace

bool IsCut(StepKind kind, const StepRequest& request, const CutRules& rules) {
  const bool unseen = request.direct_input && request.shared_memory;
  return kind == StepKind::kPrefill && rules.tokens > 0 && !unseen &&
         request.total_tokens() > rules.tokens &&
         EndOfPiece(request, {}, rules).row < request.rows();
}

StepCursor EndOfPiece(const StepRequest& request, StepCursor from, const CutRules& rules) {
  const uint32_t unit = std::gcd(rules.tokens, kKernelChunk);
  uint32_t room = rules.tokens;
  StepCursor at = from;
  while (at.row < request.rows()) {
    const uint32_t length = request.tokens(at.row);
    const uint32_t left = length - at.token;
    if (left > room) {
      const uint32_t part = length <= rules.whole ? 0 : room / unit * unit;
      if (part == 0 && at == from) return {at.row + 1, 0};
      return {at.row, at.token + part};
    }
    room -= left;
    at = {at.row + 1, 0};
  }
  return at;
}

int64_t TokensBefore(const StepRequest& request, StepCursor to) {
  if (request.token_counts.empty()) return static_cast<int64_t>(to.row);
  int64_t tokens = to.token;
  for (size_t row = 0; row < to.row; ++row) tokens += request.tokens(row);
  return tokens;
}

std::vector<std::string_view> InputOf(const StepRequest& request,
                                      const std::vector<InputTensor>& tensors, int64_t first,
                                      int64_t count) {
  std::vector<std::string_view> input;
  const uint64_t total = request.total_tokens();
  size_t begin = 0;  // of the tensor in the request's bytes
  for (const InputTensor& tensor : tensors) {
    const size_t row = tensor.row_bytes();
    AppendPieces(request.input, begin + static_cast<size_t>(first) * row,
                 static_cast<size_t>(count) * row, &input);
    begin += total * row;
  }
  return input;
}

}  // namespace gdn
