// kernels/cuda/device/warpgroup.cuh in software; that file says what each does.
#pragma once

#include "kernels/cuda/device/ptx.cuh"
#include "tests/emulator/products.h"

namespace gdn::cuda {

inline void WarpgroupFence() {}
inline void WarpgroupCommit() { emulated::CommitProducts(); }
template <int kPending = 0>
inline void WarpgroupWait() {
  emulated::WaitForProducts(kPending);
}
template <int N>
inline void WarpgroupTouch(float (&)[N]) {}
template <int N>
inline void WarpgroupTouch(uint4 (&)[N]) {}
template <int kRegisters>
inline void WarpgroupTakeRegisters() {}
template <int kRegisters>
inline void WarpgroupGiveRegisters() {}

inline uint64_t RowsAreN(uint32_t address) {
  return uint64_t{1} << 62 | uint64_t{1024 / 16} << 32 | uint64_t{1} << 16 |
         (address & 0x3ffff) >> 4;
}
inline uint64_t RowsAreK(uint32_t address) {
  return uint64_t{1} << 62 | uint64_t{1024 / 16} << 32 | uint64_t{8192 / 16} << 16 |
         (address & 0x3ffff) >> 4;
}

template <typename T, bool kAdd = true>
inline void WarpgroupMma(float (&d)[16], uint4 a, uint64_t b) {
  emulated::Multiply<T, 32, false, kAdd>(d, a, b);
}
template <typename T, bool kAdd = true>
inline void WarpgroupMma(float (&d)[32], uint4 a, uint64_t b) {
  emulated::Multiply<T, 64, false, kAdd>(d, a, b);
}
template <typename T, bool kAdd = true>
inline void WarpgroupMma(float (&d)[64], uint4 a, uint64_t b) {
  emulated::Multiply<T, 128, true, kAdd>(d, a, b);
}
template <typename T, bool kAdd = true>
inline void WarpgroupMmaRowsAreK(float (&d)[32], uint4 a, uint64_t b) {
  emulated::Multiply<T, 64, true, kAdd>(d, a, b);
}
template <typename T, bool kAdd = true>
inline void WarpgroupMmaShared(float (&d)[32], uint64_t a, uint64_t b) {
  emulated::MultiplyShared<T, 64, kAdd>(d, a, b);
}

}  // namespace gdn::cuda
