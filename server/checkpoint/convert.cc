#include "server/checkpoint/convert.h"

#include <cstdint>
#include <cstring>

#include "kernels/dtype.h"

namespace gdn {
namespace {

template <typename From, typename To>
void ConvertAs(const void* in, void* out, size_t n) {
  const From* from = static_cast<const From*>(in);
  To* to = static_cast<To*>(out);
  for (size_t i = 0; i < n; ++i) to[i] = FromFloat<To>(ToFloat(from[i]));
}

template <typename From>
void ConvertFrom(const void* in, DType to, void* out, size_t n) {
  switch (to) {
    case DType::kFp32:
      return ConvertAs<From, float>(in, out, n);
    case DType::kBf16:
      return ConvertAs<From, Bf16>(in, out, n);
    case DType::kFp16:
      return ConvertAs<From, Fp16>(in, out, n);
  }
}

// Finite means: the bits of the exponent are not all ones.
template <typename Bits>
bool NoneHasExponent(const void* data, Bits exponent, size_t n) {
  const Bits* bits = static_cast<const Bits*>(data);
  Bits found = 0;
  for (size_t i = 0; i < n; ++i) found |= static_cast<Bits>((bits[i] & exponent) == exponent);
  return found == 0;
}

}  // namespace

void Convert(DType from, const void* in, DType to, void* out, size_t n) {
  if (from == to) {
    std::memcpy(out, in, n * SizeOf(from));
    return;
  }
  switch (from) {
    case DType::kFp32:
      return ConvertFrom<float>(in, to, out, n);
    case DType::kBf16:
      return ConvertFrom<Bf16>(in, to, out, n);
    case DType::kFp16:
      return ConvertFrom<Fp16>(in, to, out, n);
  }
}

bool AllFinite(DType type, const void* data, size_t n) {
  switch (type) {
    case DType::kBf16:
      return NoneHasExponent<uint16_t>(data, 0x7f80, n);
    case DType::kFp16:
      return NoneHasExponent<uint16_t>(data, 0x7c00, n);
    case DType::kFp32:
      break;
  }
  return NoneHasExponent<uint32_t>(data, 0x7f800000, n);
}

}  // namespace gdn
