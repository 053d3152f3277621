// Bytes that come in pieces, as the wire left them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <span>
#include <string_view>

namespace gdn {

// Bytes [offset, offset + size) of the pieces joined.
inline void CopyPieces(std::span<const std::string_view> pieces, size_t offset, size_t size,
                       std::byte* to) {
  for (const std::string_view piece : pieces) {
    if (size == 0) return;
    if (offset >= piece.size()) {
      offset -= piece.size();
      continue;
    }
    const size_t n = std::min(size, piece.size() - offset);
    std::memcpy(to, piece.data() + offset, n);
    to += n;
    size -= n;
    offset = 0;
  }
}

}  // namespace gdn
