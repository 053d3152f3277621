#include "server/wire/step.h"

#include <cstring>

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

bool OutputBuffer::Write(size_t at, std::span<const std::byte> from) const {
  if (data == nullptr) return device->Write(device_offset + at, from).ok();
  std::memcpy(data + at, from.data(), from.size());
  return true;
}

bool OutputBuffer::Read(size_t at, std::span<std::byte> to) const {
  if (data == nullptr) return device->Read(device_offset + at, to).ok();
  std::memcpy(to.data(), data + at, to.size());
  return true;
}

}  // namespace gdn
