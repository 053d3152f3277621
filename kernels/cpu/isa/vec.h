// Vectors of fp32 in the widest registers of the instruction set this is compiled for. Everything
// is in an unnamed namespace: the linker must not merge code of different instruction sets.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>
#if defined(__F16C__)
#include <immintrin.h>
#endif

#include "kernels/geometry.h"

namespace gdn::cpu {
namespace {

#if defined(__AVX512F__)
inline constexpr int kLanes = 16;
inline constexpr int kRegisters = 32;
#elif defined(__AVX2__)
inline constexpr int kLanes = 8;
inline constexpr int kRegisters = 16;
#else
inline constexpr int kLanes = 4;
inline constexpr int kRegisters = 16;
#endif

typedef float VecF __attribute__((vector_size(4 * kLanes)));
typedef int32_t VecI __attribute__((vector_size(4 * kLanes)));
typedef uint32_t VecU __attribute__((vector_size(4 * kLanes)));
typedef uint16_t VecH __attribute__((vector_size(2 * kLanes)));
typedef VecF VecFUnaligned __attribute__((aligned(4), may_alias));
typedef VecH VecHUnaligned __attribute__((aligned(2), may_alias));

struct Bf16Bits {
  uint16_t bits;
};
struct Fp16Bits {
  uint16_t bits;
};

inline VecF Broadcast(float x) { return x - VecF{}; }
inline VecU BroadcastU(uint32_t x) { return x - VecU{}; }
inline VecF AsF(VecU x) { return (VecF)x; }
inline VecU AsU(VecF x) { return (VecU)x; }
inline VecF Select(VecI mask, VecF yes, VecF no) { return mask ? yes : no; }

inline VecF LoadV(const float* p) { return *reinterpret_cast<const VecFUnaligned*>(p); }
inline void StoreV(float* p, VecF x) { *reinterpret_cast<VecFUnaligned*>(p) = x; }

inline VecU LoadBits(const void* p) {
  return __builtin_convertvector(*static_cast<const VecHUnaligned*>(p), VecU);
}
inline void StoreBits(void* p, VecU x) {
  *static_cast<VecHUnaligned*>(p) = __builtin_convertvector(x, VecH);
}

inline VecF LoadV(const Bf16Bits* p) { return AsF(LoadBits(p) << 16); }

// To nearest even; infinity and NaN stay what they are.
inline void StoreV(Bf16Bits* p, VecF x) {
  const VecU u = AsU(x);
  const VecU rounded = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
  const VecU nan = (u >> 16) | 0x40;
  StoreBits(p, (u & 0x7fffffff) > 0x7f800000 ? nan : rounded);
}

#if defined(__AVX512F__)
// The masked forms: GCC 12 warns of the other ones' undefined register.
inline constexpr __mmask16 kAll = 0xffff;

inline VecF LoadV(const Fp16Bits* p) {
  return (VecF)_mm512_maskz_cvtph_ps(kAll, _mm256_loadu_si256((const __m256i*)p));
}
inline void StoreV(Fp16Bits* p, VecF x) {
  _mm256_storeu_si256((__m256i*)p, _mm512_maskz_cvtps_ph(kAll, (__m512)x, 0));
}
#elif defined(__F16C__)
inline VecF LoadV(const Fp16Bits* p) {
  return (VecF)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline void StoreV(Fp16Bits* p, VecF x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph((__m256)x, 0));
}
#else
inline constexpr uint32_t kFp16Rebias = (127 - 15) << 23;
inline constexpr uint32_t kFp16SmallestNormal = kFp16Rebias + (1 << 23);  // 2^-14

inline VecF LoadV(const Fp16Bits* p) {
  const VecU bits = LoadBits(p);
  const VecU shifted = (bits & 0x7fff) << 13;
  const VecU normal =
      shifted + kFp16Rebias + (shifted >= (31u << 23) ? BroadcastU(kFp16Rebias) : VecU{});
  // A denormal is mantissa * 2^-24: put the mantissa below 2^-14 and take 2^-14 away again.
  const VecU denormal =
      AsU(AsF(shifted + kFp16SmallestNormal) - AsF(BroadcastU(kFp16SmallestNormal)));
  return AsF((shifted < (1u << 23) ? denormal : normal) | (bits & 0x8000) << 16);
}
inline void StoreV(Fp16Bits* p, VecF x) {
  const VecU u = AsU(x) & 0x7fffffff;
  const VecU normal = (u + 0xfff + ((u >> 13) & 1) - kFp16Rebias) >> 13;
  const VecU half = BroadcastU(126 << 23);  // 0.5, whose last bit is worth 2^-24
  const VecU denormal = AsU(AsF(u) + AsF(half)) - half;
  const VecU finite = u < kFp16SmallestNormal ? denormal : normal;
  const VecU large = u > 0x7f800000 ? BroadcastU(0x7e00) : BroadcastU(0x7c00);
  StoreBits(p, (u >= 0x477ff000 ? large : finite) | (AsU(x) >> 16 & 0x8000));
}
#endif

// The first n <= kLanes lanes; the others are zero.
template <typename T>
inline VecF LoadV(const T* p, int64_t n) {
  if (n == kLanes) return LoadV(p);
  T padded[kLanes] = {};
  memcpy(padded, p, static_cast<size_t>(n) * sizeof(T));
  return LoadV(padded);
}
template <typename T>
inline void StoreV(T* p, VecF x, int64_t n) {
  if (n == kLanes) return StoreV(p, x);
  T padded[kLanes];
  StoreV(padded, x);
  memcpy(p, padded, static_cast<size_t>(n) * sizeof(T));
}

// Calls f(i, lanes) for the vectors that n elements make, the last one perhaps not whole.
template <typename F>
inline void ForEachVector(int64_t n, F f) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) f(i, kLanes);
  if (i < n) f(i, static_cast<int>(n - i));
}

template <int Step, int... Lane>
inline VecF Rotate(VecF x, std::integer_sequence<int, Lane...>) {
  return __builtin_shufflevector(x, x, (Lane + Step) % kLanes...);
}

// Sum over the lanes.
template <int Step = kLanes / 2>
inline float SumLanes(VecF x) {
  if constexpr (Step == 0) {
    return x[0];
  } else {
    return SumLanes<Step / 2>(x + Rotate<Step>(x, std::make_integer_sequence<int, kLanes>()));
  }
}

template <typename T>
struct TypeTag {};

// Calls f with the tag of the C++ type that stands for `type`.
template <typename F>
inline void WithType(DType type, F f) {
  switch (type) {
    case DType::kFp32:
      return f(TypeTag<float>());
    case DType::kBf16:
      return f(TypeTag<Bf16Bits>());
    case DType::kFp16:
      return f(TypeTag<Fp16Bits>());
  }
}

// The state is kept in fp32 or bf16.
template <typename F>
inline void WithStateType(DType type, F f) {
  if (type == DType::kBf16) return f(TypeTag<Bf16Bits>());
  f(TypeTag<float>());
}

template <typename X, typename Y>
inline void Copy(Y* y, const X* x, int64_t n) {
  ForEachVector(n, [&](int64_t i, int lanes) { StoreV(y + i, LoadV(x + i, lanes), lanes); });
}

inline void ToFloat(float* y, const void* x, DType type, int64_t n) {
  WithType(type, [&]<typename T>(TypeTag<T>) { Copy(y, static_cast<const T*>(x), n); });
}

inline void FromFloat(void* y, DType type, const float* x, int64_t n) {
  WithType(type, [&]<typename T>(TypeTag<T>) { Copy(static_cast<T*>(y), x, n); });
}

// No element's exponent is all ones.
inline bool AllFinite(const void* x, DType type, int64_t n) {
  VecI bad = {};
  WithType(type, [&]<typename T>(TypeTag<T>) {
    ForEachVector(n, [&](int64_t i, int lanes) {
      const VecU bits = AsU(LoadV(static_cast<const T*>(x) + i, lanes));
      bad |= (bits & 0x7f800000) == 0x7f800000;
    });
  });
  int32_t any = 0;
  for (int64_t i = 0; i < kLanes; ++i) any |= bad[i];
  return any == 0;
}

}  // namespace
}  // namespace gdn::cpu
