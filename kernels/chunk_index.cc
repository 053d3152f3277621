#include "kernels/chunk_index.h"

#include <algorithm>
#include <numeric>

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

void LongestFirst(std::span<const int64_t> chunk_offsets, int64_t* longest_first) {
  const auto chunks = [&](int64_t row) { return chunk_offsets[row + 1] - chunk_offsets[row]; };
  std::vector<int64_t> rows(chunk_offsets.size() - 1);
  std::iota(rows.begin(), rows.end(), int64_t{0});
  std::stable_sort(rows.begin(), rows.end(),
                   [&](int64_t a, int64_t b) { return chunks(a) > chunks(b); });
  int64_t before = 0;
  for (const int64_t row : rows) {
    *longest_first++ = row;
    *longest_first++ = before;
    before += chunks(row);
  }
}

ChunkIndex::ChunkIndex(std::span<const int64_t> offsets) : offsets_(offsets.size()) {
  ChunkIndicesParams p = {.rows = static_cast<int64_t>(offsets.size()) - 1,
                          .offsets = offsets.data(),
                          .chunk_offsets = offsets_.data()};
  ChunkIndices(p);
  indices_.resize(2 * offsets_.back());
  p.chunk_indices = indices_.data();
  ChunkIndices(p);
  longest_first_.resize(2 * p.rows);
  LongestFirst(offsets_, longest_first_.data());
}

Chunks ChunkIndex::chunks() const {
  Chunks chunks = {static_cast<int64_t>(indices_.size() / 2), offsets_.data(), indices_.data(),
                   longest_first_.data()};
  if (!longest_first_.empty()) {
    const int64_t row = longest_first_.front();
    chunks.longest = offsets_[row + 1] - offsets_[row];
  }
  return chunks;
}

}  // namespace gdn
