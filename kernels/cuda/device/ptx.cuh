// The inline PTX of the kernels, what CUDA C++ has no words for; a warpgroup's is in warpgroup.cuh.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

namespace gdn::cuda {

// ---- launches that depend on one another, and clusters

// Waits until the grids before this one have finished and their writes are visible. Without
// programmatic launch it returns at once.
__device__ __forceinline__ void GridDependencyWait() {
  asm volatile("griddepcontrol.wait;" ::: "memory");
}

// Lets the next grid begin as soon as every block has called this or ended.
__device__ __forceinline__ void GridDependencyLaunch() {
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}

// All threads of the cluster: arrive and, later, wait. What was read before the arrival may be
// overwritten after the wait; what was written needs a fence of its own to be seen.
__device__ __forceinline__ void ClusterArrive() {
  asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
}
__device__ __forceinline__ void ClusterWait() {
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

__device__ __forceinline__ unsigned ClusterRank() {
  unsigned rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
__device__ __forceinline__ unsigned ClusterSize() {
  unsigned size;
  asm volatile("mov.u32 %0, %%cluster_nctarank;" : "=r"(size));
  return size;
}

// The same in one: no block of the cluster goes on before all have come, and sees what they wrote.
__device__ __forceinline__ void ClusterSync() {
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::
                   : "memory");
}

// The address, in the cluster's shared memory, of `local` in block `rank`.
__device__ __forceinline__ uint32_t PeerAddress(uint32_t local, unsigned rank) {
  uint32_t address;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(address) : "r"(local), "r"(rank));
  return address;
}
// Four bytes to a block of the cluster, counted by `barrier` there; both are peer addresses.
__device__ __forceinline__ void StoreToPeer(uint32_t to, float x, uint32_t barrier) {
  asm volatile(
      "st.async.shared::cluster.mbarrier::complete_tx::bytes.b32 [%0], %1, [%2];" ::"r"(to),
      "r"(__float_as_uint(x)), "r"(barrier)
      : "memory");
}

// ---- global memory

__device__ __forceinline__ unsigned LoadRelaxed(const unsigned* from) {
  unsigned value;
  asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(from) : "memory");
  return value;
}

// With a Release elsewhere: what was written before it is seen by what follows here.
__device__ __forceinline__ unsigned LoadAcquire(const unsigned* from) {
  unsigned value;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(from) : "memory");
  return value;
}
__device__ __forceinline__ void MaxRelaxed(unsigned* to, unsigned value) {
  asm volatile("red.relaxed.gpu.global.max.u32 [%0], %1;" ::"l"(to), "r"(value) : "memory");
}
__device__ __forceinline__ void AddRelease(unsigned* to, unsigned value) {
  asm volatile("red.release.gpu.global.add.u32 [%0], %1;" ::"l"(to), "r"(value) : "memory");
}

// 16 bytes that are read once: not kept in L1, and not moved by the compiler.
__device__ __forceinline__ uint4 LoadStreaming(const void* from) {
  uint4 v;
  asm volatile("ld.global.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(from));
  return v;
}
__device__ __forceinline__ void StoreStreaming(void* to, uint4 v) {
  asm volatile("st.global.L1::no_allocate.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(v.x),
               "r"(v.y), "r"(v.z), "r"(v.w)
               : "memory");
}

// ---- tensor cores: m16n8k16, A row by row, B column by column, sums in fp32

// d += a * b, for one warp. Thread t of the warp, with g = t / 4 and c = 2 * (t % 4), holds
//   d    (g, c), (g, c + 1), (g + 8, c), (g + 8, c + 1)
//   a    pairs at (g, c), (g + 8, c), (g, c + 8), (g + 8, c + 8)
//   b    pairs along k at (k = c, n = g), (k = c + 8, n = g)
template <typename T>
__device__ __forceinline__ void Mma(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2,
                                    uint32_t a3, uint32_t b0, uint32_t b1);
template <>
__device__ __forceinline__ void Mma<__nv_bfloat16>(float (&d)[4], uint32_t a0, uint32_t a1,
                                                   uint32_t a2, uint32_t a3, uint32_t b0,
                                                   uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
template <>
__device__ __forceinline__ void Mma<__half>(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2,
                                            uint32_t a3, uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// The same for fp32 numbers of tf32's precision (RoundToTf32), m16n8k8: a at (g, t), (g + 8, t),
// (g, t + 4) and (g + 8, t + 4), b at (k = t, n = g) and (k = t + 4, n = g), where t = thread % 4.
__device__ __forceinline__ void MmaTf32(float (&d)[4], float a0, float a1, float a2, float a3,
                                        float b0, float b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(__float_as_uint(a0)), "r"(__float_as_uint(a1)), "r"(__float_as_uint(a2)),
        "r"(__float_as_uint(a3)), "r"(__float_as_uint(b0)), "r"(__float_as_uint(b1)));
}
// To eleven bits of significand: the products drop the bits below.
__device__ __forceinline__ float RoundToTf32(float x) {
  return __uint_as_float(__float_as_uint(x) + 0x1000);
}

// Two fp32 as one register of T, `low` in its lower half.
template <typename T>
__device__ __forceinline__ uint32_t PackPair(float low, float high);
template <>
__device__ __forceinline__ uint32_t PackPair<__nv_bfloat16>(float low, float high) {
  uint32_t r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}
template <>
__device__ __forceinline__ uint32_t PackPair<__half>(float low, float high) {
  uint32_t r;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}

// Four 8x8 matrices of 16-bit elements; lane 8m + r names row r of matrix m, 16 bytes in shared
// memory. Thread t receives the pair at (t / 4, 2 * (t % 4)) of each, or of its transpose.
__device__ __forceinline__ uint4 LoadMatrices(uint32_t address) {
  uint4 r;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r.x), "=r"(r.y), "=r"(r.z), "=r"(r.w)
               : "r"(address)
               : "memory");
  return r;
}
__device__ __forceinline__ uint4 LoadMatricesTransposed(uint32_t address) {
  uint4 r;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r.x), "=r"(r.y), "=r"(r.z), "=r"(r.w)
               : "r"(address)
               : "memory");
  return r;
}

// The way back: thread t brings the pair at (t / 4, 2 * (t % 4)) of each matrix.
__device__ __forceinline__ void StoreMatrices(uint32_t address, uint4 r) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address),
               "r"(r.x), "r"(r.y), "r"(r.z), "r"(r.w)
               : "memory");
}
// Thread t brings the pair at (t / 4, 2 * (t % 4)) of the transpose of each matrix.
__device__ __forceinline__ void StoreMatricesTransposed(uint32_t address, uint4 r) {
  asm volatile(
      "stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address),
      "r"(r.x), "r"(r.y), "r"(r.z), "r"(r.w)
      : "memory");
}

// The transpose of a matrix of which thread t has the pair at (t / 4, 2 * (t % 4)).
__device__ __forceinline__ uint32_t TransposeMatrix(uint32_t r) {
  uint32_t transposed;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(transposed) : "r"(r));
  return transposed;
}

// 16 bytes of shared memory.
__device__ __forceinline__ uint4 LoadSharedPiece(uint32_t address) {
  uint4 v;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "r"(address)
               : "memory");
  return v;
}

// 2^x to 2 ulp; what is below fp32's normal range becomes 0.
__device__ __forceinline__ float Exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// x, of which the compiler computes nothing ahead: in a loop, what it could would take registers
// all the time.
__device__ __forceinline__ uint32_t NotBefore(uint32_t x) {
  asm volatile("" : "+r"(x));
  return x;
}

// ---- copies into shared memory

__device__ __forceinline__ uint32_t SharedAddress(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// 16 bytes from global memory, or 16 zero bytes if not `valid` (nothing is read then).
__device__ __forceinline__ void CopyAsync16(uint32_t to, const void* from, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
               "r"(valid ? 16 : 0)
               : "memory");
}
// The same of one float.
__device__ __forceinline__ void CopyAsyncFloat(uint32_t to, const float* from, bool valid) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from),
               "r"(valid ? 4 : 0)
               : "memory");
}
// Has this thread arrive at `barrier`, as one of its arrivals, once all its copies so far are done.
__device__ __forceinline__ void CopyAsyncArrive(uint32_t barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}
// Makes a group of this thread's copies since the last one, perhaps of none.
__device__ __forceinline__ void CopyAsyncCommit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
// Waits for all groups of this thread but the last `kPending`.
template <int kPending>
__device__ __forceinline__ void CopyAsyncWait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}
// Waits for all such copies of this thread.
__device__ __forceinline__ void CopyAsyncWait() { asm volatile("cp.async.wait_all;" ::: "memory"); }

__device__ __forceinline__ void BarrierInit(uint32_t barrier, unsigned arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
// Makes initialised barriers visible to the copy engine.
__device__ __forceinline__ void BarrierInitFence() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ __forceinline__ void BarrierArrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
// Arrives, and has the phase wait for `bytes` of bulk copies too.
__device__ __forceinline__ void BarrierArriveExpect(uint32_t barrier, unsigned bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}
// Has the phase wait for `bytes` of bulk copies, without arriving.
__device__ __forceinline__ void BarrierExpect(uint32_t barrier, unsigned bytes) {
  asm volatile("mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}
// Arrives at a barrier of another block of the cluster, by its peer address.
__device__ __forceinline__ void BarrierArrivePeer(uint32_t peer_barrier) {
  asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(peer_barrier) : "memory");
}
// Waits until the phase of this parity has completed.
__device__ __forceinline__ void BarrierWait(uint32_t barrier, unsigned parity) {
  asm volatile(
      "{\n.reg .pred done;\nagain:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n}" ::"r"(barrier),
      "r"(parity)
      : "memory");
}
// `bytes` (a multiple of 16) from global memory, counted by `barrier`.
__device__ __forceinline__ void CopyBulk(uint32_t to, const void* from, unsigned bytes,
                                         uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(to),
      "l"(from), "r"(bytes), "r"(barrier)
      : "memory");
}
// The same to all blocks of the cluster that `blocks` names by bits, to the same place in each and
// counted by the same barrier there.
__device__ __forceinline__ void CopyBulkToAll(uint32_t to, const void* from, unsigned bytes,
                                              uint32_t barrier, uint16_t blocks) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
      "[%0], [%1], %2, [%3], %4;" ::"r"(to),
      "l"(from), "r"(bytes), "r"(barrier), "h"(blocks)
      : "memory");
}

// 64 rows of 64 columns of a tensor into a panel, counted by `barrier`. `map` (tensor_map.h) lies
// in a parameter of the kernel's that is __grid_constant__.
__device__ __forceinline__ void CopyPanel(uint32_t to, const void* map, int column, int row,
                                          uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%2, %3}], [%4];" ::"r"(to),
      "l"(map), "r"(column), "r"(row), "r"(barrier)
      : "memory");
}

// For bulk copies: what they move is the last to leave L2.
__device__ __forceinline__ uint64_t KeepInL2() {
  uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}
__device__ __forceinline__ void CopyBulk(uint32_t to, const void* from, unsigned bytes,
                                         uint32_t barrier, uint64_t policy) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1], %2, [%3], %4;" ::"r"(to),
      "l"(from), "r"(bytes), "r"(barrier), "l"(policy)
      : "memory");
}

// ---- copies out of shared memory

// Orders this thread's accesses to shared memory before those of the copy engine that follow.
__device__ __forceinline__ void AsyncProxyFence() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
// Orders accesses to global memory by threads before those of the copy engine that follow.
__device__ __forceinline__ void AsyncProxyFenceGlobal() {
  asm volatile("fence.proxy.async.global;" ::: "memory");
}
// `bytes` (a multiple of 16) from shared to global memory.
__device__ __forceinline__ void StoreBulk(void* to, uint32_t from, unsigned bytes) {
  asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(to), "r"(from),
               "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void StoreBulk(void* to, uint32_t from, unsigned bytes,
                                          uint64_t policy) {
  asm volatile(
      "cp.async.bulk.global.shared::cta.bulk_group.L2::cache_hint [%0], [%1], %2, %3;" ::"l"(to),
      "r"(from), "r"(bytes), "l"(policy)
      : "memory");
}
// A panel to 64 rows of 64 columns of a tensor, a map as in CopyPanel; what lies beyond the last
// row or column is left out.
__device__ __forceinline__ void StorePanel(const void* map, int column, int row, uint32_t from) {
  asm volatile(
      "cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%0, {%1, %2}], [%3];" ::"l"(map),
      "r"(column), "r"(row), "r"(from)
      : "memory");
}
__device__ __forceinline__ void StoreBulkCommit() {
  asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}
// Waits until this thread's bulk stores have read their shared memory, but for the last `kPending`
// that were committed.
template <int kPending = 0>
__device__ __forceinline__ void StoreBulkWaitRead() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(kPending) : "memory");
}
// Waits until this thread's bulk stores are done.
__device__ __forceinline__ void StoreBulkWait() {
  asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
}
// Brings the line of an address into L2, some time.
__device__ __forceinline__ void Prefetch(const void* from) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(from) : "memory");
}
// Brings `bytes` (a multiple of 16) into L2, some time.
__device__ __forceinline__ void PrefetchBulk(const void* from, unsigned bytes) {
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(from), "r"(bytes) : "memory");
}

// The same of what CopyPanel brings.
__device__ __forceinline__ void PrefetchPanel(const void* map, int column, int row) {
  asm volatile("cp.async.bulk.prefetch.tensor.2d.L2.global.tile [%0, {%1, %2}];" ::"l"(map),
               "r"(column), "r"(row)
               : "memory");
}

// A barrier among `threads` threads, whole warps; ids from 1 on, 0 is __syncthreads.
__device__ __forceinline__ void NamedBarrier(int id, int threads) {
  asm volatile("barrier.cta.sync.aligned %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// The same, and whether any of the threads had `x`.
__device__ __forceinline__ bool NamedBarrierOr(int id, int threads, bool x) {
  int any;
  asm volatile(
      "{\n.reg .pred in, out;\n"
      "setp.ne.s32 in, %1, 0;\n"
      "barrier.cta.red.or.aligned.pred out, %2, %3, in;\n"
      "selp.s32 %0, 1, 0, out;\n}"
      : "=r"(any)
      : "r"(static_cast<int>(x)), "r"(id), "r"(threads)
      : "memory");
  return any != 0;
}

}  // namespace gdn::cuda
