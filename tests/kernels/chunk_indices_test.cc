// The bookkeeping of the chunked form as every implementation has it, against the host's.
#include <gtest/gtest.h>

#include <vector>

#include "kernels/chunk_index.h"
#include "kernels/ops/operands.h"
#include "tests/testing/cases.h"
#include "tests/testing/implementation.h"

namespace gdn::test {
namespace {

void Check(const Implementation& impl, const std::vector<int64_t>& lengths) {
  const RowSet rows(lengths);
  const ChunkIndex index(rows.offsets());
  const Chunks chunks = index.chunks();
  std::vector<int64_t> got_lengths(rows.count(), -7);
  std::vector<int64_t> offsets(rows.count() + 1, -7);
  std::vector<int64_t> indices(2 * chunks.count, -7);
  impl.chunk_indices(
      {rows.count(), rows.offsets().data(), got_lengths.data(), offsets.data(), indices.data()});
  EXPECT_EQ(got_lengths, lengths);
  EXPECT_EQ(offsets,
            std::vector<int64_t>(chunks.chunk_offsets, chunks.chunk_offsets + rows.count() + 1));
  EXPECT_EQ(indices,
            std::vector<int64_t>(chunks.chunk_indices, chunks.chunk_indices + 2 * chunks.count));
}

class ChunkIndicesTest : public OpTest {};
GDN_ON_EVERY_IMPLEMENTATION(ChunkIndicesTest);

TEST_P(ChunkIndicesTest, LengthsAboutAChunkAndEmptyRows) {
  Check(*GetParam(), {64, 0, 1, 129});
  Check(*GetParam(), {0, 0, 65, 63, 0});
  Check(*GetParam(), {0, 0, 0});
  Check(*GetParam(), {1});
}

TEST_P(ChunkIndicesTest, NoRows) { Check(*GetParam(), {}); }

TEST_P(ChunkIndicesTest, ManyRows) {
  Rng rng(1);
  for (int64_t rows : {31, 1023, 1024, 1025, 5000}) {
    std::vector<int64_t> lengths(rows);
    for (int64_t& length : lengths) length = static_cast<int64_t>(rng() % 200);
    Check(*GetParam(), lengths);
  }
}

TEST_P(ChunkIndicesTest, OneLongRow) { Check(*GetParam(), {3, 300000, 5}); }

}  // namespace
}  // namespace gdn::test
