// Element types on the device: conversions to and from fp32, from a DType to a C++ type, and
// vectors of elements that move in one access.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "kernels/geometry.h"

namespace gdn::cuda {

__device__ __forceinline__ float ToFloat(float x) { return x; }
__device__ __forceinline__ float ToFloat(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float ToFloat(__half x) { return __half2float(x); }

template <typename T>
__device__ __forceinline__ T FromFloat(float x);
template <>
__device__ __forceinline__ float FromFloat<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ __nv_bfloat16 FromFloat<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}
template <>
__device__ __forceinline__ __half FromFloat<__half>(float x) {
  return __float2half_rn(x);
}

// Calls f with a value of the C++ type of `type`, and returns what it returns.
template <typename F>
__host__ __device__ auto WithType(DType type, F&& f) {
  switch (type) {
    case DType::kBf16:
      return f(__nv_bfloat16{});
    case DType::kFp16:
      return f(__half{});
    case DType::kFp32:
      break;
  }
  return f(float{});
}

// A number that is a template argument, passed as a value.
template <int N>
using Constant = std::integral_constant<int, N>;

// N elements side by side.
template <typename T, int N>
struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) Pack {
  T e[N];
};

// The largest word, up to 16 bytes, of which so many bytes consist.
template <size_t kBytes>
using WordOf =
    std::conditional_t<kBytes % 16 == 0, uint4,
                       std::conditional_t<kBytes % 8 == 0, uint2,
                                          std::conditional_t<kBytes % 4 == 0, uint32_t, uint16_t>>>;

// The N elements at `data`, in as few accesses as can be. The compiler would not join those to the
// elements by itself.
template <int N, typename T>
__device__ __forceinline__ Pack<T, N> LoadRaw(const T* data) {
  using Word = WordOf<sizeof(Pack<T, N>)>;
  constexpr int kWords = sizeof(Pack<T, N>) / sizeof(Word);
  Word words[kWords];
#pragma unroll
  for (int i = 0; i < kWords; ++i) words[i] = reinterpret_cast<const Word*>(data)[i];
  Pack<T, N> x;
  memcpy(&x, words, sizeof(x));
  return x;
}

// N elements as they lie in memory. The compiler, which takes a Pack apart as soon as it is loaded,
// keeps these together: half the registers while they are under way.
template <typename T, int N>
struct Words {
  static constexpr int kBytes = static_cast<int>(sizeof(Pack<T, N>));
  static constexpr int kCount = (kBytes + 3) / 4;

  uint32_t word[kCount] = {};
};

// The N elements at `data`, in as few accesses as can be.
template <int N, typename T>
__device__ __forceinline__ Words<T, N> LoadWords(const T* data) {
  using To = Words<T, N>;
  using Word = WordOf<To::kBytes>;
  To x;
#pragma unroll
  for (int i = 0; i < To::kBytes / static_cast<int>(sizeof(Word)); ++i) {
    const Word word = reinterpret_cast<const Word*>(data)[i];
    memcpy(reinterpret_cast<char*>(x.word) + i * sizeof(Word), &word, sizeof(Word));
  }
  return x;
}

__device__ __forceinline__ void WidenWord(uint32_t word, float, float* to) {
  to[0] = __uint_as_float(word);
}
__device__ __forceinline__ void WidenWord(uint32_t word, __nv_bfloat16, float* to) {
  to[0] = __uint_as_float(word << 16);
  to[1] = __uint_as_float(word & 0xffff0000u);
}
__device__ __forceinline__ void WidenWord(uint32_t word, __half, float* to) {
  __half2 pair;
  memcpy(&pair, &word, sizeof(pair));
  to[0] = __low2float(pair);
  to[1] = __high2float(pair);
}

template <typename T, int N>
__device__ __forceinline__ Pack<float, N> Widen(const Words<T, N>& raw) {
  constexpr int kOfWord = 4 / static_cast<int>(sizeof(T));
  float all[Words<T, N>::kCount * kOfWord];
#pragma unroll
  for (int i = 0; i < Words<T, N>::kCount; ++i) WidenWord(raw.word[i], T{}, all + i * kOfWord);
  Pack<float, N> x;
#pragma unroll
  for (int i = 0; i < N; ++i) x.e[i] = all[i];
  return x;
}

template <typename T, int N>
__device__ __forceinline__ void StoreRaw(const Pack<T, N>& x, T* data) {
  using Word = WordOf<sizeof(Pack<T, N>)>;
  constexpr int kWords = sizeof(Pack<T, N>) / sizeof(Word);
  Word words[kWords];
  memcpy(words, &x, sizeof(x));
#pragma unroll
  for (int i = 0; i < kWords; ++i) reinterpret_cast<Word*>(data)[i] = words[i];
}

template <typename T, int N>
__device__ __forceinline__ Pack<float, N> Widen(const Pack<T, N>& raw) {
  Pack<float, N> x;
#pragma unroll
  for (int i = 0; i < N; ++i) x.e[i] = ToFloat(raw.e[i]);
  return x;
}

// The same, widened.
template <int N, typename T>
__device__ __forceinline__ Pack<float, N> LoadPack(const T* data) {
  return Widen(LoadRaw<N>(data));
}

// x rounded to T.
template <typename T, int N>
__device__ __forceinline__ void StorePack(const Pack<float, N>& x, T* data) {
  Pack<T, N> raw;
#pragma unroll
  for (int i = 0; i < N; ++i) raw.e[i] = FromFloat<T>(x.e[i]);
  StoreRaw(raw, data);
}

// Whether packs of N elements can be taken from `data` at every multiple of `stride` elements.
template <int N>
bool TakesPacks(const void* data, int64_t stride) {
  return reinterpret_cast<uintptr_t>(data) % 16 == 0 && stride % N == 0;
}

}  // namespace gdn::cuda
