// Matrices in the registers of a warp.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <bit>
#include <cstdint>

#include "tests/emulator/warp.h"

namespace gdn::emulator {

template <typename T>
uint16_t Bits(float x) {
  if constexpr (std::is_same_v<T, __half>) {
    return std::bit_cast<uint16_t>(__float2half_rn(x));
  } else {
    return std::bit_cast<uint16_t>(__float2bfloat16_rn(x));
  }
}

template <typename T>
float Value(uint16_t bits) {
  if constexpr (std::is_same_v<T, __half>) {
    return static_cast<float>(std::bit_cast<_Float16>(bits));
  } else {
    return std::bit_cast<float>(uint32_t{bits} << 16);
  }
}

uint4 LoadMatrices(uint32_t address, bool transposed);
void StoreMatrices(uint32_t address, uint4 r, bool transposed);
uint32_t TransposeMatrix(uint32_t r);

struct Operands {
  float* d;
  uint32_t a[4];
  uint32_t b[2];
};

// d += a * b, m16n8 with k of kK: one register of a holds kPair elements side by side.
template <int kK, int kPair, typename F>
void MultiplyLanes(const void* const* in, const F& value) {
  float a[16][kK];
  float b[kK][8];
  const auto of = [in](int lane) { return static_cast<const Operands*>(in[lane]); };
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane / 4;
    for (int e = 0; e < kPair; ++e) {
      const int c = lane % 4 * kPair + e;
      for (int r = 0; r < 4; ++r) {
        a[g + r % 2 * 8][c + r / 2 * kK / 2] = value(of(lane)->a[r], e);
      }
      for (int r = 0; r < 2; ++r) b[c + r * kK / 2][g] = value(of(lane)->b[r], e);
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    for (int e = 0; e < 4; ++e) {
      const int m = lane / 4 + e / 2 * 8;
      const int n = lane % 4 * 2 + e % 2;
      float sum = 0.0f;
      for (int k = 0; k < kK; ++k) sum += a[m][k] * b[k][n];
      of(lane)->d[e] += sum;
    }
  }
}

template <typename T>
void MultiplyWarp(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  const Operands operands = {d, {a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
  Meet(&operands, nullptr, [](const void* const* in, void* const*) {
    MultiplyLanes<16, 2>(
        in, [](uint32_t r, int e) { return Value<T>(static_cast<uint16_t>(r >> (16 * e))); });
  });
}

inline void MultiplyWarpTf32(float (&d)[4], const float (&a)[4], const float (&b)[2]) {
  Operands operands = {d, {}, {}};
  for (int i = 0; i < 4; ++i) operands.a[i] = std::bit_cast<uint32_t>(a[i]);
  for (int i = 0; i < 2; ++i) operands.b[i] = std::bit_cast<uint32_t>(b[i]);
  Meet(&operands, nullptr, [](const void* const* in, void* const*) {
    MultiplyLanes<8, 1>(in, [](uint32_t r, int) { return std::bit_cast<float>(r & 0xffffe000u); });
  });
}

}  // namespace gdn::emulator
