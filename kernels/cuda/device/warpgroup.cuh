// The inline PTX of a warpgroup's products: 64 x N x 16, asynchronous, sums in fp32.
#pragma once

#include "kernels/cuda/device/ptx.cuh"

namespace gdn::cuda {

// Orders the registers of the sums and of A, as they are now, before the products that follow.
__device__ __forceinline__ void WarpgroupFence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void WarpgroupCommit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Waits for all products committed but the last `kPending` groups.
template <int kPending = 0>
__device__ __forceinline__ void WarpgroupWait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
// Has the compiler settle these registers here: before the fence, or after the wait.
template <int N>
__device__ __forceinline__ void WarpgroupTouch(float (&d)[N]) {
#pragma unroll
  for (float& e : d) asm volatile("" : "+f"(e)::"memory");
}
template <int N>
__device__ __forceinline__ void WarpgroupTouch(uint4 (&a)[N]) {
#pragma unroll
  for (uint4& e : a) asm volatile("" : "+r"(e.x), "+r"(e.y), "+r"(e.z), "+r"(e.w)::"memory");
}

// A warpgroup of a kernel with a limit of registers takes more than it was started with, which
// others have given back; multiples of 8.
template <int kRegisters>
__device__ __forceinline__ void WarpgroupTakeRegisters() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void WarpgroupGiveRegisters() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// The descriptor of a right operand in shared memory: rows of 128 bytes, eight of them to 1024, the
// 16-byte pieces of row i permuted by XOR with i % 8. A row holds 64 of k for one n (rows are n),
// or 64 of n for one k (rows are k; the next 64 of n lie 8192 bytes further).
__device__ __forceinline__ uint64_t RowsAreN(uint32_t address) {
  return uint64_t{1} << 62 | uint64_t{1024 / 16} << 32 | uint64_t{1} << 16 |
         (address & 0x3ffff) >> 4;
}
__device__ __forceinline__ uint64_t RowsAreK(uint32_t address) {
  return uint64_t{1} << 62 | uint64_t{1024 / 16} << 32 | uint64_t{8192 / 16} << 16 |
         (address & 0x3ffff) >> 4;
}

// d += a * b, or with kAdd false d = a * b, by a warpgroup; a warp takes 16 rows. Registers are as
// in Mma, its d for every 8 columns in turn.
#define GDN_FLOATS8(d, i)                                                               \
  "+f"((d)[i]), "+f"((d)[i + 1]), "+f"((d)[i + 2]), "+f"((d)[i + 3]), "+f"((d)[i + 4]), \
      "+f"((d)[i + 5]), "+f"((d)[i + 6]), "+f"((d)[i + 7])
#define GDN_WGMMA_N32(TYPE)                                                      \
  asm volatile(                                                                  \
      "{\n.reg .pred add;\nsetp.ne.b32 add, %21, 0;\n"                           \
      "wgmma.mma_async.sync.aligned.m64n32k16.f32." TYPE "." TYPE                \
      " "                                                                        \
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, " \
      "{%16, %17, %18, %19}, %20, add, 1, 1, 0;\n}"                              \
      : GDN_FLOATS8(d, 0), GDN_FLOATS8(d, 8)                                     \
      : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "l"(b), "n"(kAdd))
#define GDN_WGMMA_N64(TYPE, B_LAYOUT)                                                \
  asm volatile(                                                                      \
      "{\n.reg .pred add;\nsetp.ne.b32 add, %37, 0;\n"                               \
      "wgmma.mma_async.sync.aligned.m64n64k16.f32." TYPE "." TYPE                    \
      " "                                                                            \
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, " \
      "%17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, " \
      "{%32, %33, %34, %35}, %36, add, 1, 1, " B_LAYOUT ";\n}"                       \
      : GDN_FLOATS8(d, 0), GDN_FLOATS8(d, 8), GDN_FLOATS8(d, 16), GDN_FLOATS8(d, 24) \
      : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "l"(b), "n"(kAdd))
#define GDN_WGMMA_N128(TYPE, B_LAYOUT)                                                 \
  asm volatile(                                                                        \
      "{\n.reg .pred add;\nsetp.ne.b32 add, %69, 0;\n"                                 \
      "wgmma.mma_async.sync.aligned.m64n128k16.f32." TYPE "." TYPE                     \
      " "                                                                              \
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, "   \
      "%17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "    \
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, "    \
      "%47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, "    \
      "%62, %63}, "                                                                    \
      "{%64, %65, %66, %67}, %68, add, 1, 1, " B_LAYOUT ";\n}"                         \
      : GDN_FLOATS8(d, 0), GDN_FLOATS8(d, 8), GDN_FLOATS8(d, 16), GDN_FLOATS8(d, 24),  \
        GDN_FLOATS8(d, 32), GDN_FLOATS8(d, 40), GDN_FLOATS8(d, 48), GDN_FLOATS8(d, 56) \
      : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "l"(b), "n"(kAdd))

// 32 columns, b's rows are n.
template <typename T, bool kAdd = true>
__device__ __forceinline__ void WarpgroupMma(float (&d)[16], uint4 a, uint64_t b) {
  if constexpr (std::is_same_v<T, __half>) {
    GDN_WGMMA_N32("f16");
  } else {
    GDN_WGMMA_N32("bf16");
  }
}
// 64 columns, b's rows are n.
template <typename T, bool kAdd = true>
__device__ __forceinline__ void WarpgroupMma(float (&d)[32], uint4 a, uint64_t b) {
  if constexpr (std::is_same_v<T, __half>) {
    GDN_WGMMA_N64("f16", "0");
  } else {
    GDN_WGMMA_N64("bf16", "0");
  }
}
// 128 columns, b's rows are k.
template <typename T, bool kAdd = true>
__device__ __forceinline__ void WarpgroupMma(float (&d)[64], uint4 a, uint64_t b) {
  if constexpr (std::is_same_v<T, __half>) {
    GDN_WGMMA_N128("f16", "1");
  } else {
    GDN_WGMMA_N128("bf16", "1");
  }
}
// 64 columns, b's rows are k.
template <typename T, bool kAdd = true>
__device__ __forceinline__ void WarpgroupMmaRowsAreK(float (&d)[32], uint4 a, uint64_t b) {
  if constexpr (std::is_same_v<T, __half>) {
    GDN_WGMMA_N64("f16", "1");
  } else {
    GDN_WGMMA_N64("bf16", "1");
  }
}
#undef GDN_WGMMA_N32
#undef GDN_WGMMA_N64
#undef GDN_WGMMA_N128

// 64 columns, a in shared memory too, by the descriptor of a right operand whose rows are n.
#define GDN_WGMMA_SHARED(TYPE)                                                       \
  asm volatile(                                                                      \
      "{\n.reg .pred add;\nsetp.ne.b32 add, %34, 0;\n"                               \
      "wgmma.mma_async.sync.aligned.m64n64k16.f32." TYPE "." TYPE                    \
      " "                                                                            \
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, " \
      "%17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, " \
      "%32, %33, add, 1, 1, 0, 0;\n}"                                                \
      : GDN_FLOATS8(d, 0), GDN_FLOATS8(d, 8), GDN_FLOATS8(d, 16), GDN_FLOATS8(d, 24) \
      : "l"(a), "l"(b), "n"(kAdd))
template <typename T, bool kAdd = true>
__device__ __forceinline__ void WarpgroupMmaShared(float (&d)[32], uint64_t a, uint64_t b) {
  if constexpr (std::is_same_v<T, __half>) {
    GDN_WGMMA_SHARED("f16");
  } else {
    GDN_WGMMA_SHARED("bf16");
  }
}
#undef GDN_WGMMA_SHARED
#undef GDN_FLOATS8

}  // namespace gdn::cuda
