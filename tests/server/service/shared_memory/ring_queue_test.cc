#include "server/service/shared_memory/ring_queue.h"

#include <chrono>
#include <random>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace gdn::test {
namespace {

constexpr size_t kSize = 64;

// A queue with both its ends, and the words that the other side could change.
class RingQueueTest : public ::testing::Test {
 protected:
  RingQueueTest() : guarded_(kSize + 2 * kSize, std::byte{0xaa}) {}
  ~RingQueueTest() override {
    for (size_t i = 0; i < kSize; ++i) {
      EXPECT_EQ(guarded_[i], std::byte{0xaa});
      EXPECT_EQ(guarded_[2 * kSize + i], std::byte{0xaa});
    }
  }
  void StoreLength(uint64_t at, uint64_t length) { bytes_.CopyIn(at, &length, sizeof length); }

  std::vector<std::byte> guarded_;
  RingBytes bytes_{guarded_.data() + kSize, kSize};
  std::atomic<uint64_t> written_ = 0;
  std::atomic<uint64_t> read_ = 0;
  RingReader reader_{bytes_, &written_, &read_};
  RingWriter writer_{bytes_, &written_, &read_};
  std::string message_;
};

TEST_F(RingQueueTest, MessagesComeOutAsTheyWentIn) {
  EXPECT_TRUE(reader_.Empty());
  EXPECT_EQ(reader_.Read(&message_), RingResult::kNotYet);
  for (const char* text : {"", "a", "12345678", "123456789"}) {
    EXPECT_EQ(writer_.Write(text), RingResult::kDone);
  }
  for (const char* text : {"", "a", "12345678", "123456789"}) {
    EXPECT_FALSE(reader_.Empty());
    EXPECT_EQ(reader_.Read(&message_), RingResult::kDone);
    EXPECT_EQ(message_, text);
  }
  EXPECT_EQ(read_, written_);
  EXPECT_EQ(written_ % 8, 0u);
}

TEST_F(RingQueueTest, GoesAroundTheEnd) {
  std::mt19937 random(1);
  for (int i = 0; i < 1000; ++i) {
    const std::string text(random() % (kSize - 7), static_cast<char>('a' + i % 26));
    ASSERT_EQ(writer_.Write(text), RingResult::kDone);
    ASSERT_EQ(reader_.Read(&message_), RingResult::kDone);
    ASSERT_EQ(message_, text);
  }
}

TEST_F(RingQueueTest, AFullOneWaitsForItsReader) {
  EXPECT_EQ(writer_.Write(std::string(40, 'x')), RingResult::kDone);
  EXPECT_FALSE(writer_.HasRoom("123456789"));
  EXPECT_EQ(writer_.Write("123456789"), RingResult::kNotYet);
  EXPECT_EQ(writer_.Write("12345678"), RingResult::kDone);  // to the last byte
  EXPECT_EQ(writer_.Write(""), RingResult::kNotYet);
  EXPECT_EQ(reader_.Read(&message_), RingResult::kDone);
  EXPECT_EQ(writer_.Write("123456789"), RingResult::kDone);
}

TEST_F(RingQueueTest, WhatNeverFitsNeverDoes) {
  EXPECT_EQ(writer_.Write(std::string(kSize - 7, 'x')), RingResult::kNotYet);
  EXPECT_EQ(writer_.Write(std::string(kSize - 8, 'x')), RingResult::kDone);
}

TEST_F(RingQueueTest, PositionsThatMakeNoSense) {
  for (const uint64_t written :
       {uint64_t{1}, uint64_t{7}, uint64_t{kSize + 1}, uint64_t{1} << 63, ~uint64_t{0}}) {
    written_ = written;
    EXPECT_EQ(reader_.Read(&message_), RingResult::kBroken) << written;
  }
  for (const uint64_t read : {uint64_t{1}, uint64_t{1} << 40, ~uint64_t{kSize}}) {
    read_ = read;
    EXPECT_EQ(writer_.Write("a"), RingResult::kBroken) << read;
  }
}

TEST_F(RingQueueTest, LengthsThatMakeNoSense) {
  written_ = 16;
  for (const uint64_t length : {uint64_t{9}, uint64_t{kSize}, uint64_t{kSize + 1},
                                uint64_t{1} << 63, ~uint64_t{0}, ~uint64_t{0} - 7}) {
    StoreLength(0, length);
    EXPECT_EQ(reader_.Read(&message_), RingResult::kBroken) << length;
  }
  StoreLength(0, 8);
  EXPECT_EQ(reader_.Read(&message_), RingResult::kDone);
}

// The other side changes everything all the time: nothing is touched outside.
TEST_F(RingQueueTest, AScribblerHarmsNobody) {
  std::atomic<bool> stop = false;
  std::thread scribbler([&] {
    std::mt19937_64 random(7);
    while (!stop) {
      written_ = random() % 3 == 0 ? random() : random() % 256;
      read_ = random() % 3 == 0 ? random() : random() % 256;
    }
  });
  std::mt19937_64 random(8);
  for (int i = 0; i < 200000; ++i) {
    StoreLength(random() % 8 * 8, random() % 3 == 0 ? random() : random() % 80);
    reader_.Read(&message_);
    writer_.Write(std::string(random() % 70, 'x'));
    ASSERT_LE(message_.size(), kSize);
  }
  stop = true;
  scribbler.join();
}

TEST(RingBellTest, WhoSleepsIsWoken) {
  RingBell bell;
  std::atomic<int> turns = 0;
  constexpr int kTurns = 2000;
  std::thread sleeper([&] {
    for (int turn = 1; turn <= kTurns; ++turn) {
      while (turns < turn) {
        bell.Sleep(kToRead, std::chrono::hours(1), [&] { return turns >= turn; });
      }
    }
  });
  for (int turn = 1; turn <= kTurns; ++turn) {
    turns = turn;
    bell.Ring(kToRead);
  }
  sleeper.join();
  EXPECT_EQ(bell.sleeps_for, 0u);
}

TEST(RingBellTest, NobodyIsWokenForSomethingElse) {
  RingBell bell;
  bell.Ring(kToRead);
  bell.sleeps_for = kToWrite;
  bell.Ring(kToRead);
  EXPECT_EQ(bell.rung, 0u);
  bell.Ring(kToWrite);
  EXPECT_EQ(bell.rung, 1u);
}

TEST(RingBellTest, ASleepEnds) {
  RingBell bell;
  bell.Sleep(kToRead, std::chrono::milliseconds(1), [] { return false; });
}

}  // namespace
}  // namespace gdn::test
