#include "state/answer_store.h"

#include <span>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gdn {
namespace {

using ::testing::IsNull;
using ::testing::Pointee;

std::span<const std::byte> Bytes(const std::string& text) { return std::as_bytes(std::span(text)); }

TEST(AnswerStoreTest, KeepsTheLastAnswerOfASequenceAtALayer) {
  AnswerStore store(100);
  store.Put(1, 0, Bytes("first"));
  store.Put(1, 0, Bytes("second"));
  store.Put(1, 1, Bytes("layer one"));
  store.Put(2, 0, Bytes("other"));
  EXPECT_THAT(store.Find(1, 0), Pointee(std::string("second")));
  EXPECT_THAT(store.Find(1, 1), Pointee(std::string("layer one")));
  EXPECT_THAT(store.Find(2, 0), Pointee(std::string("other")));
  EXPECT_THAT(store.Find(2, 1), IsNull());
  EXPECT_EQ(store.bytes(), 6u + 9u + 5u);
}

TEST(AnswerStoreTest, DropsTheOldestAsRoomDemands) {
  AnswerStore store(10);
  store.Put(1, 0, Bytes("aaaa"));
  store.Put(2, 0, Bytes("bbbb"));
  store.Put(1, 0, Bytes("AAAA"));  // the newest now
  store.Put(3, 0, Bytes("cccc"));
  EXPECT_THAT(store.Find(2, 0), IsNull());
  EXPECT_THAT(store.Find(1, 0), Pointee(std::string("AAAA")));
  EXPECT_EQ(store.bytes(), 8u);
  store.Put(4, 0, Bytes("0123456789"));
  EXPECT_THAT(store.Find(1, 0), IsNull());
  EXPECT_THAT(store.Find(3, 0), IsNull());
  EXPECT_EQ(store.bytes(), 10u);
}

TEST(AnswerStoreTest, WhatIsTooLargeReplacesOnlyItsOwn) {
  AnswerStore store(4);
  store.Put(1, 0, Bytes("aa"));
  store.Put(2, 0, Bytes("bb"));
  store.Put(1, 0, Bytes("aaaaa"));
  EXPECT_THAT(store.Find(1, 0), IsNull());
  EXPECT_THAT(store.Find(2, 0), Pointee(std::string("bb")));
  AnswerStore none(0);
  none.Put(1, 0, Bytes("a"));
  EXPECT_THAT(none.Find(1, 0), IsNull());
}

TEST(AnswerStoreTest, ErasesWhatEnded) {
  AnswerStore store(100);
  for (const int layer : {0, 1, 2}) store.Put(1, layer, Bytes("a"));
  store.Put(2, 0, Bytes("b"));
  store.Erase(1, 1);
  store.Erase(1, 1);
  EXPECT_THAT(store.Find(1, 1), IsNull());
  EXPECT_THAT(store.Find(1, 2), Pointee(std::string("a")));
  store.EraseSequence(1, 3);
  EXPECT_THAT(store.Find(1, 0), IsNull());
  EXPECT_THAT(store.Find(1, 2), IsNull());
  EXPECT_THAT(store.Find(2, 0), Pointee(std::string("b")));
  EXPECT_EQ(store.bytes(), 1u);
}

}  // namespace
}  // namespace gdn
