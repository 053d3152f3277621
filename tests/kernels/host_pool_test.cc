#include "kernels/host_pool.h"

#include <algorithm>
#include <cstdint>
#include <random>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace gdn {
namespace {

constexpr size_t kBlock = 4096;

class HostPoolTest : public ::testing::Test {
 protected:
  static constexpr size_t kSize = 16 * kBlock;

  std::shared_ptr<std::vector<std::byte>> memory_ =
      std::make_shared<std::vector<std::byte>>(kSize + 3 * kBlock);
  HostPool pool_{memory_, memory_->data(), kSize};
};

TEST_F(HostPoolTest, BlocksDoNotOverlapAndAreOfTheMemory) {
  std::vector<std::pair<std::byte*, size_t>> blocks;
  for (const size_t bytes : {size_t{1}, kBlock, kBlock + 1, 3 * kBlock, size_t{100}, 3 * kBlock}) {
    std::byte* block = pool_.Take(bytes);
    ASSERT_NE(block, nullptr) << bytes;
    EXPECT_GE(block, memory_->data());
    EXPECT_LE(block + bytes, memory_->data() + kSize);
    EXPECT_EQ((block - memory_->data()) % kBlock, 0u);
    for (const auto& [other, size] : blocks) {
      EXPECT_TRUE(block + bytes <= other || other + size <= block);
    }
    blocks.emplace_back(block, bytes);
  }
}

TEST_F(HostPoolTest, IsBoundedAndFreeBlocksBecomeOneAgain) {
  EXPECT_EQ(pool_.Take(kSize + 1), nullptr);
  std::vector<std::byte*> blocks;
  for (int i = 0; i < 16; ++i) blocks.push_back(pool_.Take(kBlock));
  EXPECT_EQ(std::count(blocks.begin(), blocks.end(), nullptr), 0);
  EXPECT_EQ(pool_.Take(1), nullptr);
  EXPECT_EQ(pool_.bytes_taken(), kSize);
  std::shuffle(blocks.begin(), blocks.end(), std::mt19937(1));
  for (std::byte* block : blocks) pool_.Return(block, kBlock);
  EXPECT_EQ(pool_.bytes_taken(), 0u);
  EXPECT_EQ(pool_.Take(kSize), memory_->data());
}

TEST_F(HostPoolTest, ABlockThatWasReturnedIsTakenAgain) {
  std::byte* block = pool_.Take(3 * kBlock);
  pool_.Return(block, 3 * kBlock);
  EXPECT_EQ(pool_.Take(4 * kBlock), block);
}

TEST_F(HostPoolTest, AnySizeOfMemoryIsUsed) {
  HostPool pool(memory_, memory_->data(), kSize + 3 * kBlock + 5);
  std::vector<std::byte*> blocks;
  for (std::byte* block = pool.Take(1); block != nullptr; block = pool.Take(1)) {
    blocks.push_back(block);
  }
  EXPECT_EQ(blocks.size(), 19u);
  for (std::byte* block : blocks) pool.Return(block, 1);
  EXPECT_NE(pool.Take(kSize), nullptr);
  EXPECT_NE(pool.Take(2 * kBlock), nullptr);
  EXPECT_NE(pool.Take(kBlock), nullptr);
  EXPECT_EQ(pool.Take(1), nullptr);
}

TEST_F(HostPoolTest, SizesBeyondEverythingAreRefused) {
  EXPECT_EQ(pool_.Take(SIZE_MAX / 2), nullptr);
  EXPECT_NE(pool_.Take(0), nullptr);
}

// Each thread writes what it took and finds it as it was.
TEST_F(HostPoolTest, ManyThreadsTakeAndReturn) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([this, t] {
      std::mt19937 random(static_cast<uint32_t>(t));
      for (int i = 0; i < 3000; ++i) {
        const size_t bytes = 1 + random() % (4 * kBlock);
        std::byte* block = pool_.Take(bytes);
        if (block == nullptr) continue;
        std::fill_n(block, bytes, std::byte(t));
        EXPECT_EQ(std::count(block, block + bytes, std::byte(t)), static_cast<ptrdiff_t>(bytes));
        pool_.Return(block, bytes);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(pool_.bytes_taken(), 0u);
}

}  // namespace
}  // namespace gdn
