#include "server/engine/spare_hand.h"

#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "gtest/gtest.h"

namespace gdn {
namespace {

constexpr size_t kUnit = 32 << 10;

// The ranges that work was called for, and by which thread.
class Ranges {
 public:
  void Add(size_t begin, size_t end) {
    const std::lock_guard lock(mutex_);
    EXPECT_TRUE(ends_.emplace(begin, end).second);
    by_.insert(std::this_thread::get_id());
  }
  size_t threads() const {
    const std::lock_guard lock(mutex_);
    return by_.size();
  }
  void ExpectAllOf(size_t size) const {
    size_t done = 0;
    for (const auto& [begin, end] : ends_) {
      EXPECT_EQ(begin, done);
      EXPECT_EQ(begin % kUnit, 0u);
      done = end;
    }
    EXPECT_EQ(done, size);
  }

 private:
  mutable std::mutex mutex_;
  std::map<size_t, size_t> ends_;
  std::set<std::thread::id> by_;
};

TEST(SpareHandTest, WhereNobodyHelpsOneDoesItAll) {
  SpareHand hand;
  for (const size_t size : {size_t{0}, size_t{1}, kUnit, 5 * kUnit + 1}) {
    Ranges ranges;
    hand.Share(size, [&](size_t begin, size_t end) { ranges.Add(begin, end); });
    ranges.ExpectAllOf(size);
  }
  hand.Help([] { return false; });
}

TEST(SpareHandTest, WhoHelpsTakesPart) {
  SpareHand hand;
  std::atomic<bool> over = false;
  std::thread helper([&] {
    while (!over) hand.Help([] { return false; });
  });
  for (int i = 0; i < 20; ++i) {
    Ranges ranges;
    hand.Share(9 * kUnit, [&](size_t begin, size_t end) {
      ranges.Add(begin, end);
      while (ranges.threads() < 2) std::this_thread::yield();
    });
    ranges.ExpectAllOf(9 * kUnit);
  }
  over = true;
  helper.join();
}

TEST(SpareHandTest, WhoHasSomethingElseToDoHelpsNoMore) {
  SpareHand hand;
  std::atomic<bool> over = false;
  std::thread helper([&] {
    while (!over) hand.Help([] { return true; });
  });
  for (int i = 0; i < 100; ++i) {
    Ranges ranges;
    hand.Share(3 * kUnit, [&](size_t begin, size_t end) { ranges.Add(begin, end); });
    ranges.ExpectAllOf(3 * kUnit);
    EXPECT_EQ(ranges.threads(), 1u);
  }
  over = true;
  helper.join();
}

TEST(SpareHandTest, ManyMayShareAtATime) {
  SpareHand hand;
  const auto share = [&hand] {
    for (int i = 0; i < 200; ++i) {
      Ranges ranges;
      hand.Share(3 * kUnit, [&](size_t begin, size_t end) {
        ranges.Add(begin, end);
        std::this_thread::yield();
      });
      ranges.ExpectAllOf(3 * kUnit);
    }
  };
  std::atomic<bool> over = false;
  std::thread helper([&] {
    while (!over) hand.Help([] { return false; });
  });
  std::thread other(share);
  share();
  other.join();
  over = true;
  helper.join();
}

}  // namespace
}  // namespace gdn
