// bf16 and fp16 on the host: conversions to and from float, to nearest even. Free of branches, so
// that loops over them vectorise; correct for denormals, infinities and NaN (which stays NaN).
#pragma once

#include <bit>
#include <cstdint>

#include "kernels/geometry.h"

namespace gdn {

struct Bf16 {
  uint16_t bits;
};

struct Fp16 {
  uint16_t bits;
};

inline float ToFloat(float x) { return x; }

inline float ToFloat(Bf16 x) { return std::bit_cast<float>(uint32_t{x.bits} << 16); }

inline float ToFloat(Fp16 x) {
  constexpr uint32_t kRebias = (127 - 15) << 23;
  constexpr uint32_t kSmallestNormal = kRebias + (1 << 23);  // 2^-14
  const uint32_t shifted = (uint32_t{x.bits} & 0x7fff) << 13;
  const uint32_t normal = shifted + kRebias + (shifted >= (31u << 23) ? kRebias : 0);
  // A denormal is mantissa * 2^-24: put the mantissa below 2^-14 and take 2^-14 away again.
  const float denormal =
      std::bit_cast<float>(shifted + kSmallestNormal) - std::bit_cast<float>(kSmallestNormal);
  const uint32_t magnitude = shifted < (1u << 23) ? std::bit_cast<uint32_t>(denormal) : normal;
  return std::bit_cast<float>(magnitude | (uint32_t{x.bits} & 0x8000) << 16);
}

template <typename T>
T FromFloat(float x);

template <>
inline float FromFloat<float>(float x) {
  return x;
}

template <>
inline Bf16 FromFloat<Bf16>(float x) {
  const uint32_t u = std::bit_cast<uint32_t>(x);
  const uint32_t rounded = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
  const uint32_t quiet_nan = (u >> 16) | 0x40;
  const bool nan = (u & 0x7fffffff) > 0x7f800000;
  return {static_cast<uint16_t>(nan ? quiet_nan : rounded)};
}

template <>
inline Fp16 FromFloat<Fp16>(float x) {
  constexpr uint32_t kRebias = (127 - 15) << 23;
  constexpr uint32_t kSmallestNormal = kRebias + (1 << 23);  // 2^-14
  constexpr uint32_t kOverflow = 0x477ff000;                 // 65520 and more round to infinity
  constexpr uint32_t kHalf = 126 << 23;                      // 0.5, whose last bit is worth 2^-24
  const uint32_t u = std::bit_cast<uint32_t>(x) & 0x7fffffff;
  const uint32_t normal = (u + 0xfff + ((u >> 13) & 1) - kRebias) >> 13;
  const uint32_t denormal =
      std::bit_cast<uint32_t>(std::bit_cast<float>(u) + std::bit_cast<float>(kHalf)) - kHalf;
  const uint32_t finite = u < kSmallestNormal ? denormal : normal;
  const uint32_t magnitude = u > 0x7f800000 ? 0x7e00 : (u >= kOverflow ? 0x7c00 : finite);
  return {static_cast<uint16_t>(magnitude | (std::bit_cast<uint32_t>(x) >> 16 & 0x8000))};
}

// Element i of a tensor of `type` at `data`.
inline float Load(const void* data, DType type, int64_t i) {
  switch (type) {
    case DType::kBf16:
      return ToFloat(static_cast<const Bf16*>(data)[i]);
    case DType::kFp16:
      return ToFloat(static_cast<const Fp16*>(data)[i]);
    case DType::kFp32:
      break;
  }
  return static_cast<const float*>(data)[i];
}

inline void Store(void* data, DType type, int64_t i, float x) {
  switch (type) {
    case DType::kBf16:
      static_cast<Bf16*>(data)[i] = FromFloat<Bf16>(x);
      return;
    case DType::kFp16:
      static_cast<Fp16*>(data)[i] = FromFloat<Fp16>(x);
      return;
    case DType::kFp32:
      break;
  }
  static_cast<float*>(data)[i] = x;
}

}  // namespace gdn
