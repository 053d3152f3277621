#include "kernels/chunk_index.h"

#include "kernels/ops/operands.h"

namespace gdn {

void ChunkIndices(const ChunkIndicesParams& p) {
  int64_t next = 0;
  for (int64_t row = 0; row < p.rows; ++row) {
    const int64_t length = p.offsets[row + 1] - p.offsets[row];
    const int64_t chunks = (length + kChunk - 1) / kChunk;
    if (p.lengths != nullptr) p.lengths[row] = length;
    p.chunk_offsets[row] = next;
    if (p.chunk_indices != nullptr) {
      for (int64_t chunk = 0; chunk < chunks; ++chunk) {
        p.chunk_indices[2 * (next + chunk)] = row;
        p.chunk_indices[2 * (next + chunk) + 1] = chunk;
      }
    }
    next += chunks;
  }
  p.chunk_offsets[p.rows] = next;
}

ChunkIndex::ChunkIndex(std::span<const int64_t> offsets) : offsets_(offsets.size()) {
  ChunkIndicesParams p = {.rows = static_cast<int64_t>(offsets.size()) - 1,
                          .offsets = offsets.data(),
                          .chunk_offsets = offsets_.data()};
  ChunkIndices(p);
  indices_.resize(2 * offsets_.back());
  p.chunk_indices = indices_.data();
  ChunkIndices(p);
}

Chunks ChunkIndex::chunks() const {
  return {static_cast<int64_t>(indices_.size() / 2), offsets_.data(), indices_.data()};
}

}  // namespace gdn
