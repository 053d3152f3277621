#include "server/engine/shares.h"

#include <mutex>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gdn {
namespace {

TEST(SharesTest, TheyAreTheWholeAndBeginAtPages) {
  for (const size_t size : {size_t{0}, size_t{1}, size_t{4} << 20, (size_t{37} << 20) + 5}) {
    std::mutex mutex;
    std::vector<std::pair<size_t, size_t>> shares;
    InShares(size, [&](size_t begin, size_t end) {
      const std::lock_guard lock(mutex);
      shares.emplace_back(begin, end);
    });
    std::sort(shares.begin(), shares.end());
    size_t done = 0;
    for (const auto& [begin, end] : shares) {
      EXPECT_EQ(begin, done);
      EXPECT_EQ(begin % 4096, 0u);
      done = end;
    }
    EXPECT_EQ(done, size);
  }
}

}  // namespace
}  // namespace gdn
