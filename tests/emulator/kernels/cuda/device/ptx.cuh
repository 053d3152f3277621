// kernels/cuda/device/ptx.cuh in software; that file says what each does.
#pragma once

#include "tests/emulator/copies.h"
#include "tests/emulator/matrix.h"
#include "tests/emulator/prelude.h"
#include "tests/emulator/shared_memory.h"

namespace gdn::cuda {

namespace emulated = gdn::emulator;

inline void GridDependencyWait() { emulated::WaitForGridsBefore(); }
inline void GridDependencyLaunch() { emulated::LetNextGridBegin(); }
inline void ClusterArrive() { emulated::ArriveCluster(); }
inline void ClusterWait() { emulated::WaitCluster(); }
inline void ClusterSync() {
  ClusterArrive();
  ClusterWait();
}
inline unsigned ClusterRank() { return emulated::self->block->rank; }
inline unsigned ClusterSize() { return emulated::self->block->grid->cluster; }
inline uint32_t PeerAddress(uint32_t local, unsigned rank) {
  return emulated::AddressInBlock(local, rank);
}
inline void StoreToPeer(uint32_t to, float x, uint32_t barrier) {
  emulated::StoreCounted(to, x, barrier);
}

inline unsigned LoadRelaxed(const unsigned* from) {
  emulated::GiveWay();
  return *from;
}
inline unsigned LoadAcquire(const unsigned* from) { return LoadRelaxed(from); }
inline void MaxRelaxed(unsigned* to, unsigned value) { *to = max(*to, value); }
inline void AddRelease(unsigned* to, unsigned value) { *to += value; }
inline uint4 LoadStreaming(const void* from) { return *static_cast<const uint4*>(from); }
inline void StoreStreaming(void* to, uint4 v) { *static_cast<uint4*>(to) = v; }

template <typename T>
inline void Mma(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                uint32_t b1) {
  emulated::MultiplyWarp<T>(d, {a0, a1, a2, a3}, {b0, b1});
}
inline void MmaTf32(float (&d)[4], float a0, float a1, float a2, float a3, float b0, float b1) {
  emulated::MultiplyWarpTf32(d, {a0, a1, a2, a3}, {b0, b1});
}
inline float RoundToTf32(float x) { return __uint_as_float(__float_as_uint(x) + 0x1000); }

template <typename T>
inline uint32_t PackPair(float low, float high) {
  return emulated::Bits<T>(low) | uint32_t{emulated::Bits<T>(high)} << 16;
}

inline uint4 LoadMatrices(uint32_t address) { return emulated::LoadMatrices(address, false); }
inline uint4 LoadMatricesTransposed(uint32_t address) {
  return emulated::LoadMatrices(address, true);
}
inline uint32_t TransposeMatrix(uint32_t r) { return emulated::TransposeMatrix(r); }
inline void StoreMatrices(uint32_t address, uint4 r) { emulated::StoreMatrices(address, r, false); }
inline void StoreMatricesTransposed(uint32_t address, uint4 r) {
  emulated::StoreMatrices(address, r, true);
}
inline uint4 LoadSharedPiece(uint32_t address) {
  return *reinterpret_cast<uint4*>(emulated::SharedPlace(address, 16).data);
}
inline float Exp2(float x) {
  const float y = std::exp2(x);
  return y < 0x1p-126f ? 0.0f : y;
}

inline uint32_t NotBefore(uint32_t x) { return x; }

inline uint32_t SharedAddress(const void* p) { return emulated::SharedAddressOf(p); }
inline void CopyAsync16(uint32_t to, const void* from, bool valid) {
  emulated::CopyByThread(to, valid ? from : nullptr, 16);
}
inline void CopyAsyncFloat(uint32_t to, const float* from, bool valid) {
  emulated::CopyByThread(to, valid ? from : nullptr, 4);
}
inline void CopyAsyncArrive(uint32_t barrier) { emulated::ArriveAfterCopies(barrier); }
inline void CopyAsyncWait() { emulated::WaitForCopies(0); }
inline void CopyAsyncCommit() { emulated::CommitCopies(); }
template <int kPending>
inline void CopyAsyncWait() {
  emulated::WaitForCopies(kPending + 1);
}

inline void BarrierInit(uint32_t barrier, unsigned arrivals) {
  emulated::InitBarrier(barrier, arrivals);
}
inline void BarrierInitFence() {}
inline void BarrierArrive(uint32_t barrier) { emulated::ArriveAt(barrier, 0); }
inline void BarrierArriveExpect(uint32_t barrier, unsigned bytes) {
  emulated::ArriveAt(barrier, bytes);
}
inline void BarrierExpect(uint32_t barrier, unsigned bytes) { emulated::ExpectAt(barrier, bytes); }
inline void BarrierArrivePeer(uint32_t peer_barrier) { emulated::ArriveAt(peer_barrier, 0); }
inline void BarrierWait(uint32_t barrier, unsigned parity) { emulated::WaitAt(barrier, parity); }
inline void CopyBulk(uint32_t to, const void* from, unsigned bytes, uint32_t barrier) {
  emulated::CopyCounted(to, from, bytes, barrier);
}
inline void CopyPanel(uint32_t to, const void* map, int column, int row, uint32_t barrier) {
  emulated::CopyPanelCounted(to, *static_cast<const emulated::Tensor*>(map), column, row, barrier);
}
inline void CopyBulkToAll(uint32_t to, const void* from, unsigned bytes, uint32_t barrier,
                          uint16_t blocks) {
  for (unsigned rank = 0; rank < 16; ++rank) {
    if ((blocks >> rank & 1) == 0) continue;
    CopyBulk(PeerAddress(to, rank), from, bytes, PeerAddress(barrier, rank));
  }
}
inline uint64_t KeepInL2() { return 0; }
inline void CopyBulk(uint32_t to, const void* from, unsigned bytes, uint32_t barrier, uint64_t) {
  CopyBulk(to, from, bytes, barrier);
}

inline void AsyncProxyFence() {}
inline void AsyncProxyFenceGlobal() {}
inline void StoreBulk(void* to, uint32_t from, unsigned bytes) {
  emulated::StoreByEngine(to, from, bytes);
}
inline void StoreBulk(void* to, uint32_t from, unsigned bytes, uint64_t) {
  StoreBulk(to, from, bytes);
}
inline void StorePanel(const void* map, int column, int row, uint32_t from) {
  emulated::StorePanelByEngine(*static_cast<const emulated::Tensor*>(map), column, row, from);
}
inline void StoreBulkCommit() { emulated::CommitStores(); }
template <int kPending = 0>
inline void StoreBulkWaitRead() {
  emulated::WaitForStores(kPending);
}
inline void StoreBulkWait() { emulated::WaitForStores(0); }
inline void PrefetchBulk(const void*, unsigned) {}
inline void Prefetch(const void*) {}
inline void PrefetchPanel(const void*, int, int) {}

inline void NamedBarrier(int id, int threads) { emulated::MeetBlock(id, threads, false); }
inline bool NamedBarrierOr(int id, int threads, bool x) {
  return emulated::MeetBlock(id, threads, x);
}

}  // namespace gdn::cuda
