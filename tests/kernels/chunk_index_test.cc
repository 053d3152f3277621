#include "kernels/chunk_index.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace gdn {
namespace {

using ::testing::ElementsAre;

TEST(ChunkIndexTest, ChunksBeginAnewWithEveryRow) {
  const std::vector<int64_t> offsets = {0, 64, 64, 65, 194};  // lengths 64, 0, 1, 129
  std::vector<int64_t> lengths(4), chunk_offsets(5), indices(10);
  ChunkIndices({4, offsets.data(), lengths.data(), chunk_offsets.data(), indices.data()});
  EXPECT_THAT(lengths, ElementsAre(64, 0, 1, 129));
  EXPECT_THAT(chunk_offsets, ElementsAre(0, 1, 1, 2, 5));
  EXPECT_THAT(indices, ElementsAre(0, 0, 2, 0, 3, 0, 3, 1, 3, 2));
}

TEST(ChunkIndexTest, OwnsWhatItShows) {
  const ChunkIndex index(std::vector<int64_t>{0, 65, 66});
  const Chunks chunks = index.chunks();
  ASSERT_EQ(chunks.count, 3);
  EXPECT_EQ(chunks.chunk_offsets[2], 3);
  EXPECT_EQ(chunks.chunk_indices[2 * 2], 1);
  EXPECT_EQ(chunks.chunk_indices[2 * 2 + 1], 0);
}

TEST(ChunkIndexTest, RanksRowsByTheirChunks) {
  const ChunkIndex index(std::vector<int64_t>{0, 64, 64, 65, 194, 257});  // chunks 1, 0, 1, 3, 1
  const Chunks chunks = index.chunks();
  EXPECT_EQ(chunks.longest, 3);
  EXPECT_THAT(std::vector<int64_t>(chunks.longest_first, chunks.longest_first + 10),
              ElementsAre(3, 0, 0, 3, 2, 4, 4, 5, 1, 6));
}

TEST(ChunkIndexTest, NoRowsAndNoTokens) {
  EXPECT_EQ(ChunkIndex(std::vector<int64_t>{0}).chunks().count, 0);
  EXPECT_EQ(ChunkIndex(std::vector<int64_t>{0}).chunks().longest, 0);
  EXPECT_EQ(ChunkIndex(std::vector<int64_t>{0, 0, 0}).chunks().count, 0);
}

// Lengths whose sum is beyond 32 bits; only the offsets exist.
TEST(ChunkIndexTest, CountsIn64Bits) {
  const std::vector<int64_t> offsets = {0, int64_t{1} << 40, (int64_t{1} << 40) + 1};
  std::vector<int64_t> chunk_offsets(3);
  ChunkIndices({.rows = 2, .offsets = offsets.data(), .chunk_offsets = chunk_offsets.data()});
  EXPECT_THAT(chunk_offsets, ElementsAre(0, int64_t{1} << 34, (int64_t{1} << 34) + 1));
}

}  // namespace
}  // namespace gdn
