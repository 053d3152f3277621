#include "state/slot_table.h"

#include <set>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gdn {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr absl::Time kStart = absl::UnixEpoch();
const auto kNone = [](int32_t) { return false; };

absl::Time After(int seconds) { return kStart + absl::Seconds(seconds); }

TEST(SlotTableTest, GivesEverySlotOnce) {
  SlotTable table(3, 2, 7);
  std::set<int32_t> slots;
  for (const char* id : {"a", "b", "c"}) slots.insert(table.Allocate(id, kStart, After(1)));
  EXPECT_THAT(slots, ElementsAre(0, 1, 2));
  EXPECT_EQ(table.used(), 3);
  EXPECT_EQ(table.free(), 0);
  for (const char* id : {"a", "b", "c"}) {
    ASSERT_TRUE(table.Find(id).has_value());
    EXPECT_EQ(table.At(*table.Find(id)).request_id, id);
  }
  EXPECT_FALSE(table.Find("d").has_value());
}

TEST(SlotTableTest, BeginsEverySequenceAnewAtEveryLayer) {
  SlotTable table(1, 2, 7);
  SequenceRecord& first = table.At(table.Allocate("a", kStart, After(1)));
  first.poisoned = true;
  first.layers[1] = {.position = 5, .step_id = 6, .step_position = 1, .step_tokens = 4};
  table.Free(0);
  EXPECT_FALSE(table.InUse(0));
  const SequenceRecord& second = table.At(table.Allocate("b", After(2), After(3)));
  EXPECT_EQ(second.request_id, "b");
  EXPECT_EQ(second.key, KeyOf("b"));
  EXPECT_FALSE(second.poisoned);
  EXPECT_EQ(second.created, After(2));
  EXPECT_EQ(second.expires, After(3));
  ASSERT_EQ(second.layers.size(), 2u);
  for (const LayerCursor& layer : second.layers) {
    EXPECT_EQ(layer.position, 0u);
    EXPECT_EQ(layer.step_id, 0u);
  }
}

TEST(SlotTableTest, NeverRepeatsAnEpochAndNeverGivesZero) {
  SlotTable table(2, 1, ~uint64_t{0} - 1);
  std::set<uint64_t> epochs;
  for (int i = 0; i < 5; ++i) {
    const int32_t slot = table.Allocate("a", kStart, After(1));
    epochs.insert(table.At(slot).epoch);
    i % 2 == 0 ? table.Free(slot) : table.Undo(slot);
  }
  EXPECT_EQ(epochs.size(), 5u);
  EXPECT_FALSE(epochs.contains(0));
}

TEST(SlotTableTest, RenewsForwardOnly) {
  SlotTable table(1, 1, 1);
  table.Allocate("a", kStart, After(10));
  table.Renew(0, After(5));
  EXPECT_EQ(table.At(0).expires, After(10));
  table.Renew(0, After(20));
  EXPECT_EQ(table.At(0).expires, After(20));
}

TEST(SlotTableTest, ALeaseIsDueOnceItsEndHasPassed) {
  SlotTable table(3, 1, 1);
  table.Allocate("a", kStart, After(10));
  table.Allocate("b", kStart, After(20));
  EXPECT_THAT(table.Due(After(10), kNone), IsEmpty());
  EXPECT_THAT(table.Due(After(11), kNone), ElementsAre(0));
  EXPECT_THAT(table.Due(After(21), kNone), ElementsAre(0, 1));
}

TEST(SlotTableTest, ALeaseThatIsKeptIsDueLater) {
  SlotTable table(2, 1, 1);
  table.Allocate("a", kStart, After(10));
  table.Allocate("b", kStart, After(20));
  EXPECT_THAT(table.Due(After(11), [](int32_t slot) { return slot == 0; }), IsEmpty());
  EXPECT_LE(table.next_expiry(), After(10));
  EXPECT_THAT(table.Due(After(11), kNone), ElementsAre(0));
}

TEST(SlotTableTest, KnowsWhenTheNextLeaseEnds) {
  SlotTable table(3, 1, 1);
  EXPECT_EQ(table.next_expiry(), absl::InfiniteFuture());
  table.Allocate("a", kStart, After(10));
  table.Allocate("b", kStart, After(5));
  EXPECT_EQ(table.next_expiry(), After(5));
  for (const int32_t slot : table.Due(After(6), kNone)) table.Expire(slot);
  EXPECT_EQ(table.next_expiry(), After(10));
}

TEST(SlotTableTest, RemembersWhatExpired) {
  SlotTable table(1, 1, 5);
  table.Allocate("a", kStart, After(1));
  table.Expire(0);
  EXPECT_FALSE(table.InUse(0));
  EXPECT_FALSE(table.Find("a").has_value());
  EXPECT_TRUE(table.Expired("a"));
  EXPECT_TRUE(table.Expired(uint64_t{5}));
  EXPECT_FALSE(table.Expired("b"));
  EXPECT_FALSE(table.Expired(uint64_t{6}));
}

TEST(SlotTableTest, ALaterEndOfTheSameIdReplacesTheExpiry) {
  SlotTable table(1, 1, 5);
  table.Allocate("a", kStart, After(1));
  table.Expire(0);
  table.Allocate("a", kStart, After(1));
  table.Free(0);
  EXPECT_FALSE(table.Expired("a"));         // it was released last
  EXPECT_TRUE(table.Expired(uint64_t{5}));  // but its first life expired
}

TEST(SlotTableTest, AnUndoneAllocationLeavesTheExpiryAsItWas) {
  SlotTable table(1, 1, 5);
  table.Allocate("a", kStart, After(1));
  table.Expire(0);
  table.Allocate("a", kStart, After(1));
  table.Undo(0);
  EXPECT_TRUE(table.Expired("a"));
  EXPECT_EQ(table.used(), 0);
}

TEST(SlotTableTest, ForgetsAllButTheLast4096Expiries) {
  SlotTable table(1, 1, 1);
  for (int i = 0; i < 5000; ++i) {
    table.Allocate(absl::StrCat(i), kStart, After(1));
    table.Expire(0);
  }
  EXPECT_FALSE(table.Expired("903"));
  EXPECT_FALSE(table.Expired(uint64_t{904}));
  EXPECT_TRUE(table.Expired("904"));
  EXPECT_TRUE(table.Expired(uint64_t{905}));
  EXPECT_TRUE(table.Expired("4999"));
}

TEST(SlotTableTest, AnIdThatKeepsExpiringIsRememberedByItsLastLife) {
  SlotTable table(1, 1, 1);
  for (int i = 0; i < 5000; ++i) {
    table.Allocate("a", kStart, After(1));
    table.Expire(0);
  }
  EXPECT_TRUE(table.Expired("a"));
}

TEST(SlotTableTest, KeysAreNeverZero) {
  for (int i = 0; i < 1000; ++i) EXPECT_NE(KeyOf(absl::StrCat(i)), 0u);
  EXPECT_EQ(KeyOf("a"), KeyOf("a"));
  EXPECT_NE(KeyOf("a"), KeyOf("b"));
}

}  // namespace
}  // namespace gdn
