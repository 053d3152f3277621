// Tensors that are not all alike: arithmetic on equal numbers takes a device less time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace gdn {

// Numbers in bfloat16 from -2 to -0.5 and from 0.5 to 2.
inline void FillWithBf16(std::span<std::byte> bytes) {
  uint64_t state = 1;
  for (size_t i = 0; i + 1 < bytes.size(); i += 2) {
    state = state * 6364136223846793005 + 1442695040888963407;
    bytes[i] = static_cast<std::byte>(state >> 56);
    bytes[i + 1] = static_cast<std::byte>((state >> 48 & 0x80) | 0x3f);
  }
}

}  // namespace gdn
