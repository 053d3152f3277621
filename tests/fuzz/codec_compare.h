// What the hand parser makes of a message against what the generated one makes of it.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace gdn {

// A parser of ours against the generated one of the same message, on `pieces` (together the
// message). Empty where both refuse or both accept and every field is the same, else what differs.
std::string ComparePrefillRequest(std::span<const std::string_view> pieces);
std::string CompareDecodeRequest(std::span<const std::string_view> pieces);
std::string CompareStreamRequest(std::span<const std::string_view> pieces);

// Whether the generated parser takes `message` as a DecodeRequest or StreamRequest.
bool GeneratedAcceptsStep(std::string_view message);
bool GeneratedAcceptsStream(std::string_view message);

// Cuts `message` at the positions that `next` gives: next(n) is in [0, n). Some pieces are empty.
template <typename Next>
std::vector<std::string_view> Slice(std::string_view message, size_t longest, Next next) {
  std::vector<std::string_view> pieces;
  while (!message.empty()) {
    const size_t size = std::min<size_t>(message.size(), next(longest + 1));
    pieces.push_back(message.substr(0, size));
    message.remove_prefix(size);
  }
  return pieces;
}

}  // namespace gdn
