// What is copied beside the threads' own loads and stores, and the mbarriers that count it. All
// addresses are of the running thread's cluster.
#pragma once

#include <cstdint>

#include "tests/emulator/tensor_map.h"

namespace gdn::emulator {

void InitBarrier(uint32_t barrier, unsigned arrivals);
// One arrival that has the phase wait for `bytes` more.
void ArriveAt(uint32_t barrier, unsigned bytes);
// Has the phase wait for `bytes` more.
void ExpectAt(uint32_t barrier, unsigned bytes);
// Until the phase of this parity is over.
void WaitAt(uint32_t barrier, unsigned parity);

// cp.async: zeros where `from` is null.
void CopyByThread(uint32_t to, const void* from, unsigned bytes);
void CommitCopies();
// For all groups but the last `kept`, of which the last is not committed yet.
void WaitForCopies(unsigned kept);
void ArriveAfterCopies(uint32_t barrier);

// cp.async.bulk and st.async into shared memory, counted by a barrier.
void CopyCounted(uint32_t to, const void* from, unsigned bytes, uint32_t barrier);
void StoreCounted(uint32_t to, float x, uint32_t barrier);
// cp.async.bulk.tensor: 64 x 64 elements of a tensor, permuted as 128 bytes of a row are.
void CopyPanelCounted(uint32_t to, const Tensor& tensor, int column, int row, uint32_t barrier);

// cp.async.bulk to global memory.
void StoreByEngine(void* to, uint32_t from, unsigned bytes);
// cp.async.bulk.tensor to global memory, as CopyPanelCounted.
void StorePanelByEngine(const Tensor& tensor, int column, int row, uint32_t from);
void CommitStores();
void WaitForStores(unsigned pending);

}  // namespace gdn::emulator
