// wgmma: products of a warpgroup, done some time between the asking and the wait.
#pragma once

#include "tests/emulator/machine.h"
#include "tests/emulator/matrix.h"

namespace gdn::emulator {

// The next product of the running thread's warpgroup; `run` is the same for all its threads.
Product& NextProduct(void (*run)(Block&, const Product&));
void Posted();
void CommitProducts();
void WaitForProducts(int pending);

// The element of an operand in shared memory by its descriptor: rows of 128 bytes, eight of them
// and then the next eight `stride` further, their pieces permuted.
template <typename T>
float Element(const Block& block, uint64_t descriptor, int row, int column) {
  const uint32_t base = (descriptor & 0x3fff) << 4;
  const uint32_t lead = (descriptor >> 16 & 0x3fff) << 4;  // from 64 columns to the next
  const uint32_t stride = (descriptor >> 32 & 0x3fff) << 4;
  uint32_t at = base + row / 8 * stride + row % 8 * 128 + column % 64 * 2 + column / 64 * lead;
  at ^= (at >> 7 & 7) << 4;
  return Value<T>(*reinterpret_cast<const uint16_t*>(block.shared + at));
}

template <typename T, int kN, bool kRowsAreK, bool kAdd, bool kShared>
void RunProduct(Block& block, const Product& p) {
  static float b[kN][16];
  for (int n = 0; n < kN; ++n) {
    for (int k = 0; k < 16; ++k) {
      b[n][k] = kRowsAreK ? Element<T>(block, p.b, k, n) : Element<T>(block, p.b, n, k);
    }
  }
  static float a[64][16];
  for (int thread = 0; thread < 128; ++thread) {
    const int row = thread / 32 * 16 + thread % 32 / 4;
    const int column = thread % 4 * 2;
    for (int r = 0; r < 4; ++r) {
      for (int e = 0; e < 2; ++e) {
        const int m = row + r % 2 * 8;
        const int k = column + r / 2 * 8 + e;
        a[m][k] = kShared ? Element<T>(block, p.a_shared, m, k)
                          : Value<T>(static_cast<uint16_t>(p.a[thread][r] >> (16 * e)));
      }
    }
  }
  for (int thread = 0; thread < 128; ++thread) {
    const int row = thread / 32 * 16 + thread % 32 / 4;
    for (int i = 0; i < kN / 2; ++i) {
      const int m = row + i % 4 / 2 * 8;
      const int n = i / 4 * 8 + thread % 4 * 2 + i % 2;
      float sum = 0.0f;
      for (int k = 0; k < 16; ++k) sum += a[m][k] * b[n][k];
      float& d = p.d[thread][i];
      d = kAdd ? d + sum : sum;
    }
  }
}

template <typename T, int kN, bool kRowsAreK, bool kAdd>
void Multiply(float* d, uint4 a, uint64_t b) {
  Product& product = NextProduct(RunProduct<T, kN, kRowsAreK, kAdd, false>);
  const int thread = self->number % 128;
  product.d[thread] = d;
  product.a[thread][0] = a.x;
  product.a[thread][1] = a.y;
  product.a[thread][2] = a.z;
  product.a[thread][3] = a.w;
  product.b = b;
  Posted();
}

template <typename T, int kN, bool kAdd>
void MultiplyShared(float* d, uint64_t a, uint64_t b) {
  Product& product = NextProduct(RunProduct<T, kN, false, kAdd, true>);
  product.d[self->number % 128] = d;
  product.a_shared = a;
  product.b = b;
  Posted();
}

}  // namespace gdn::emulator
