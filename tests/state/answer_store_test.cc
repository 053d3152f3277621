#include "state/answer_store.h"

#include <algorithm>
#include <optional>
#include <span>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gdn {
namespace {

using ::testing::Eq;
using ::testing::IsEmpty;
using ::testing::Optional;

// A store of texts.
class AnswerStoreTest : public ::testing::Test {
 protected:
  static constexpr size_t kCapacity = 100;

  static std::string Text(std::span<const std::byte> bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  static void Put(AnswerStore& store, uint64_t epoch, int layer, const std::string& text) {
    const std::span<std::byte> bytes = store.Put(epoch, layer, text.size());
    ASSERT_THAT(bytes.size(), testing::AnyOf(text.size(), 0u));
    if (!bytes.empty()) std::ranges::copy(std::as_bytes(std::span(text)), bytes.begin());
  }
  static std::optional<std::string> Find(const AnswerStore& store, uint64_t epoch, int layer) {
    const auto found = store.Find(epoch, layer);
    if (found == nullptr) return std::nullopt;
    return Text(found->bytes());
  }
  void Put(uint64_t epoch, int layer, const std::string& text) { Put(store_, epoch, layer, text); }
  std::optional<std::string> Find(uint64_t epoch, int layer) { return Find(store_, epoch, layer); }

  AnswerStore store_{kCapacity};
};

TEST_F(AnswerStoreTest, KeepsTheLastAnswerOfASequenceAtALayer) {
  Put(1, 0, "first");
  Put(1, 0, "second");
  Put(1, 1, "layer one");
  Put(2, 0, "other");
  EXPECT_THAT(Find(1, 0), Optional(Eq("second")));
  EXPECT_THAT(Find(1, 1), Optional(Eq("layer one")));
  EXPECT_THAT(Find(2, 0), Optional(Eq("other")));
  EXPECT_EQ(Find(2, 1), std::nullopt);
  EXPECT_EQ(store_.bytes(), 6u + 9u + 5u);
}

TEST_F(AnswerStoreTest, DropsTheOldestAsRoomDemands) {
  AnswerStore store(10);
  Put(store, 1, 0, "aaaa");
  Put(store, 2, 0, "bbbb");
  Put(store, 1, 0, "AAAA");  // the newest now
  Put(store, 3, 0, "cccc");
  EXPECT_EQ(Find(store, 2, 0), std::nullopt);
  EXPECT_THAT(Find(store, 1, 0), Optional(Eq("AAAA")));
  EXPECT_EQ(store.bytes(), 8u);
  Put(store, 4, 0, "0123456789");
  EXPECT_EQ(Find(store, 1, 0), std::nullopt);
  EXPECT_EQ(Find(store, 3, 0), std::nullopt);
  EXPECT_EQ(store.bytes(), 10u);
}

TEST_F(AnswerStoreTest, WhatIsTooLargeReplacesOnlyItsOwn) {
  AnswerStore store(4);
  Put(store, 1, 0, "aa");
  Put(store, 2, 0, "bb");
  EXPECT_THAT(store.Put(1, 0, 5), IsEmpty());
  EXPECT_EQ(Find(store, 1, 0), std::nullopt);
  EXPECT_THAT(Find(store, 2, 0), Optional(Eq("bb")));
  AnswerStore none(0);
  EXPECT_THAT(none.Put(1, 0, 1), IsEmpty());
  EXPECT_EQ(Find(none, 1, 0), std::nullopt);
}

TEST_F(AnswerStoreTest, ErasesWhatEnded) {
  for (const int layer : {0, 1, 2}) Put(1, layer, "a");
  Put(2, 0, "b");
  store_.Erase(1, 1);
  store_.Erase(1, 1);
  EXPECT_EQ(Find(1, 1), std::nullopt);
  EXPECT_THAT(Find(1, 2), Optional(Eq("a")));
  store_.EraseSequence(1, 3);
  EXPECT_EQ(Find(1, 0), std::nullopt);
  EXPECT_EQ(Find(1, 2), std::nullopt);
  EXPECT_THAT(Find(2, 0), Optional(Eq("b")));
  EXPECT_EQ(store_.bytes(), 1u);
}

TEST_F(AnswerStoreTest, MemoryIsUsedAgainForAnAnswerOfTheSameSize) {
  const std::byte* first = store_.Put(1, 0, 30).data();
  EXPECT_EQ(store_.Put(1, 0, 30).data(), first);  // in its own place
  EXPECT_NE(store_.Put(2, 0, 30).data(), first);
  store_.EraseSequence(1, 1);
  EXPECT_EQ(store_.Put(3, 0, 30).data(), first);
  store_.Put(4, 0, 30);
  EXPECT_NE(store_.Put(5, 0, 30).data(), nullptr);  // in the place of the oldest
  EXPECT_EQ(store_.bytes(), 90u);
}

// Memory that waits for its like makes way for what is kept.
TEST_F(AnswerStoreTest, SparesAreWithinTheCapacity) {
  for (const uint64_t epoch : {1, 2, 3, 4}) store_.Put(epoch, 0, 25);
  for (const uint64_t epoch : {1, 2, 3, 4}) store_.EraseSequence(epoch, 1);
  EXPECT_EQ(store_.bytes(), 0u);
  EXPECT_EQ(store_.memory_bytes(), kCapacity);
  store_.Put(5, 0, 30);
  EXPECT_EQ(store_.memory_bytes(), 30u + 2 * 25u);
  store_.Put(6, 0, 70);
  EXPECT_EQ(store_.memory_bytes(), kCapacity);
  EXPECT_EQ(store_.bytes(), kCapacity);
}

TEST_F(AnswerStoreTest, WhatIsHeldIsNotOverwritten) {
  Put(1, 0, "aaaa");
  const auto held = store_.Find(1, 0);
  Put(1, 0, "bbbb");
  Put(2, 0, "cccc");
  EXPECT_EQ(Text(held->bytes()), "aaaa");
  EXPECT_THAT(Find(1, 0), Optional(Eq("bbbb")));
}

}  // namespace
}  // namespace gdn
