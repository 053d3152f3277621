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
  constexpr size_t kWords = 64;  // a length that compilers vectorise
  const ExponentBits bits = ExponentOf(type);
  const auto* from = static_cast<const char*>(data);
  uint64_t words[kWords];
  for (size_t done = 0; done < bytes; done += sizeof words) {
    const size_t n = std::min(bytes - done, sizeof words);
    if (n < sizeof words) std::memset(words, 0, sizeof words);
    std::memcpy(words, from + done, n);
    uint64_t found = 0;
    for (const uint64_t word : words) found |= (word & bits.mask) + bits.lowest;
    if ((found & bits.sign) != 0) return false;
  }
  return true;
}

}  // namespace gdn
