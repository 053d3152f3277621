// NaN and infinity in bytes, many at a time and wherever these lie.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/dtype.h"

namespace gdn {

// Of a type: the exponent, which is all ones in NaN and infinity alone, in every element of a word;
// and the lowest bit of it, which added to such an exponent carries into the sign.
struct ExponentBits {
  uint64_t mask;
  uint64_t lowest;
  uint64_t sign;
};

// What every machine has in one register.
using WordPair = uint64_t __attribute__((vector_size(16)));

constexpr ExponentBits ExponentOf(DType type) {
  switch (type) {
    case DType::kBf16:
      return {0x7f807f807f807f80, 0x0080008000800080, 0x8000800080008000};
    case DType::kFp16:
      return {0x7c007c007c007c00, 0x0400040004000400, 0x8000800080008000};
    case DType::kFp32:
      break;
  }
  return {0x7f8000007f800000, 0x0080000000800000, 0x8000000080000000};
}

// Whether no element of these bytes, whole elements of `type` at any address, is NaN or infinity.
inline bool AllFinite(const void* data, size_t bytes, DType type) {
  const ExponentBits bits = ExponentOf(type);
  const auto* from = static_cast<const char*>(data);
  const auto look = [&bits](const char* at, size_t size) {
    WordPair words = {};
    std::memcpy(&words, at, size);
    return (words & bits.mask) + bits.lowest;
  };
  constexpr size_t kPair = sizeof(WordPair);
  WordPair found = {};
  for (; bytes >= 4 * kPair; from += 4 * kPair, bytes -= 4 * kPair) {
    found |= (look(from, kPair) | look(from + kPair, kPair)) |
             (look(from + 2 * kPair, kPair) | look(from + 3 * kPair, kPair));
  }
  for (; bytes > 0; from += std::min(bytes, kPair), bytes -= std::min(bytes, kPair)) {
    found |= look(from, std::min(bytes, kPair));
  }
  return ((found[0] | found[1]) & bits.sign) == 0;
}

}  // namespace gdn
