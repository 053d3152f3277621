// The chunks of a batch, built once per batch on the host.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/ops/chunk_indices.h"

namespace gdn {

// prepare_lens, chunk_offsets and chunk_indices in one pass; see kernels/ops/chunk_indices.h.
void ChunkIndices(const ChunkIndicesParams& p);

// Chunks::longest_first, [rows, 2], of rows with these chunk offsets; equal rows as they come.
void LongestFirst(std::span<const int64_t> chunk_offsets, int64_t* longest_first);

class ChunkIndex {
 public:
  // offsets [N + 1] as in Rows.
  explicit ChunkIndex(std::span<const int64_t> offsets);

  // Valid while this lives.
  Chunks chunks() const;

 private:
  std::vector<int64_t> offsets_;        // [N + 1]
  std::vector<int64_t> indices_;        // [NT, 2]
  std::vector<int64_t> longest_first_;  // [N, 2]
};

}  // namespace gdn
