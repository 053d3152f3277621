#include "server/metrics/histogram.h"

#include <array>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gdn {
namespace {

using ::testing::ElementsAre;

constexpr std::array<uint64_t, 3> kBounds = {1, 10, 100};

std::vector<uint64_t> CountsOf(const Histogram& histogram) {
  std::vector<uint64_t> counts;
  for (size_t i = 0; i <= histogram.bounds().size(); ++i) counts.push_back(histogram.count(i));
  return counts;
}

TEST(HistogramTest, ABoundIsInItsOwnBucket) {
  Histogram histogram(kBounds);
  for (const uint64_t value : {0, 1, 2, 10, 11, 100, 101, 100000}) histogram.Observe(value);
  EXPECT_THAT(CountsOf(histogram), ElementsAre(2, 2, 2, 2));
  EXPECT_EQ(histogram.sum(), 0u + 1 + 2 + 10 + 11 + 100 + 101 + 100000);
}

TEST(HistogramTest, NothingIsLostBetweenThreads) {
  Histogram histogram(kBounds);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&histogram] {
      for (int n = 0; n < 10000; ++n) histogram.Observe(10);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(CountsOf(histogram), ElementsAre(0, 40000, 0, 0));
  EXPECT_EQ(histogram.sum(), 400000u);
}

}  // namespace
}  // namespace gdn
