// The shared memory of the running thread's cluster, by 32-bit addresses.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tests/emulator/grid.h"

namespace gdn::emulator {

// `bytes` of a block's shared memory.
struct Place {
  Block* block;
  unsigned char* data;
};

// All within one block, which has not ended; fails otherwise.
Place SharedPlace(uint32_t address, size_t bytes);

uint32_t SharedAddressOf(const void* place);
// Of the same place in another block of the cluster.
inline uint32_t AddressInBlock(uint32_t address, unsigned rank) {
  return (address & 0xffffff) | rank << 24;
}

void* DynamicSharedBytes();
// Of the block, for the declaration in this line.
void* StaticSharedBytes(int line, size_t bytes, size_t alignment);

}  // namespace gdn::emulator
