#include "server/step.h"

namespace gdn {

uint64_t StepRequest::total_tokens() const {
  if (token_counts.empty()) return rows();
  uint64_t total = 0;
  for (uint32_t count : token_counts) total += count;
  return total;
}

size_t StepRequest::input_bytes() const {
  size_t bytes = 0;
  for (std::string_view piece : input) bytes += piece.size();
  return bytes;
}

}  // namespace gdn
