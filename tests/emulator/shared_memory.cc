#include "tests/emulator/shared_memory.h"

#include "absl/strings/str_cat.h"
#include "tests/emulator/machine.h"

namespace gdn::emulator {

Place SharedPlace(uint32_t address, size_t bytes) {
  const std::vector<Block*>& blocks = self->block->cluster->blocks;
  const uint32_t rank = address >> 24;
  const uint32_t offset = address & 0xffffff;
  const size_t end = self->block->grid->dynamic_bytes + self->block->static_bytes;
  if (rank >= blocks.size() || offset + bytes > end) {
    Fail(absl::StrCat("an address outside shared memory: ", offset, " of block ", rank));
  }
  if (blocks[rank]->alive == 0) Fail("shared memory of a block that has ended");
  return {blocks[rank], blocks[rank]->shared + offset};
}

uint32_t SharedAddressOf(const void* place) {
  const Block& block = *self->block;
  const auto offset = static_cast<const unsigned char*>(place) - block.shared;
  if (offset < 0 || offset >= static_cast<ptrdiff_t>(kSharedBytes)) {
    Fail("the shared address of what is not shared");
  }
  return AddressInBlock(static_cast<uint32_t>(offset), block.rank);
}

void* DynamicSharedBytes() { return self->block->shared; }

void* StaticSharedBytes(int line, size_t bytes, size_t alignment) {
  Block& block = *self->block;
  for (const auto& [known, place] : block.statics) {
    if (known == line) return place;
  }
  const size_t used = block.grid->dynamic_bytes + block.static_bytes;
  const size_t at = (used + alignment - 1) / alignment * alignment;
  if (at + bytes > kSharedBytes) Fail("too much shared memory");
  block.static_bytes = static_cast<unsigned>(at + bytes) - block.grid->dynamic_bytes;
  block.statics.emplace_back(line, block.shared + at);
  return block.shared + at;
}

}  // namespace gdn::emulator
