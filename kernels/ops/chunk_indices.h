// Bookkeeping of the chunked form, from the offsets of the rows alone.
#pragma once

#include <cstdint>

namespace gdn {

// With C = kChunk and NT(i) = ceil(length(i) / C):
//   chunk_offsets[i] = NT(0) + … + NT(i - 1)
//   chunk_indices[chunk_offsets[i] + c] = (i, c)
struct ChunkIndicesParams {
  int64_t rows = 0;                  // N
  const int64_t* offsets = nullptr;  // [N + 1]
  int64_t* lengths = nullptr;        // [N] out, or null
  int64_t* chunk_offsets = nullptr;  // [N + 1] out; the last is the number of chunks, NT
  int64_t* chunk_indices = nullptr;  // [NT, 2] out, or null: row, chunk of the row
};

// The chunks of a batch, as the chunked ops take them.
struct Chunks {
  int64_t count = 0;                       // NT
  const int64_t* chunk_offsets = nullptr;  // [N + 1]
  const int64_t* chunk_indices = nullptr;  // [NT, 2]
  // [N, 2]: the rows, longest first, each with the number of chunks of those before it. null: as
  // they come. What is computed does not depend on it.
  const int64_t* longest_first = nullptr;
  int64_t longest = 0;  // chunks of a row at most; 0: not known
};

}  // namespace gdn
