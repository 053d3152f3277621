// Bytes that come in pieces, as the wire left them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

namespace gdn {

// Calls `visit` with every piece of bytes [offset, offset + size) of the pieces joined.
template <typename Visit>
void VisitPieces(std::span<const std::string_view> pieces, size_t offset, size_t size,
                 const Visit& visit) {
  for (const std::string_view piece : pieces) {
    if (size == 0) return;
    if (offset >= piece.size()) {
      offset -= piece.size();
      continue;
    }
    const size_t n = std::min(size, piece.size() - offset);
    visit(piece.substr(offset, n));
    size -= n;
    offset = 0;
  }
}

inline void CopyPieces(std::span<const std::string_view> pieces, size_t offset, size_t size,
                       std::byte* to) {
  VisitPieces(pieces, offset, size, [&to](std::string_view piece) {
    std::memcpy(to, piece.data(), piece.size());
    to += piece.size();
  });
}

inline void AppendPieces(std::span<const std::string_view> pieces, size_t offset, size_t size,
                         std::vector<std::string_view>* to) {
  VisitPieces(pieces, offset, size, [to](std::string_view piece) { to->push_back(piece); });
}

}  // namespace gdn
