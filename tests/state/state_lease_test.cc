#include "state/state_lease.h"

#include <utility>

#include "gtest/gtest.h"

namespace gdn {
namespace {

constexpr absl::Time kStart = absl::UnixEpoch();
const absl::Time kEnd = kStart + absl::Seconds(1);

TEST(StateLeaseTest, GivesUpWhatWasNotCommitted) {
  SlotTable table(3, 1, 1);
  int32_t kept = -1;
  {
    StateLease lease(&table);
    kept = lease.Allocate("a", kStart, kEnd);
    lease.Allocate("b", kStart, kEnd);
    EXPECT_EQ(table.used(), 2);
    lease.Commit(kept);
    lease.Commit(kept);  // a second time, and a slot that is not its own: nothing
    lease.Commit(2);
  }
  EXPECT_EQ(table.used(), 1);
  EXPECT_EQ(table.Find("a"), kept);
  EXPECT_FALSE(table.Find("b").has_value());
}

TEST(StateLeaseTest, WhatMovedAwayIsGivenUpOnce) {
  SlotTable table(1, 1, 1);
  {
    StateLease first(&table);
    first.Allocate("a", kStart, kEnd);
    const StateLease second(std::move(first));
    EXPECT_EQ(table.used(), 1);
  }
  EXPECT_EQ(table.used(), 0);
  EXPECT_EQ(table.free(), 1);
}

TEST(StateLeaseTest, AnExpiredIdThatFailsToBeginIsStillExpired) {
  SlotTable table(1, 1, 1);
  table.Allocate("a", kStart, kEnd);
  table.Expire(0);
  { StateLease(&table).Allocate("a", kStart, kEnd); }
  EXPECT_TRUE(table.Expired("a"));
}

}  // namespace
}  // namespace gdn
