#include "server/engine/sequence_lines.h"

#include <array>

#include "gtest/gtest.h"

namespace gdn {
namespace {

constexpr std::array<SequenceKey, 1> kOne = {1};

// Room for one sequence: lines are swept all the time.
class SequenceLinesTest : public ::testing::Test {
 protected:
  // Steps of so many other sequences come and go.
  void Pass(SequenceKey count) {
    for (SequenceKey key = 100; key < 100 + count; ++key) {
      QueueItem item;
      item.serial = key;
      lines_.Join(std::array{key}, &item);
      EXPECT_EQ(item.waits_for, 0);
      lines_.Leave(&item);
    }
  }

  SequenceLines lines_{1};
};

TEST_F(SequenceLinesTest, WhoWaitsKeepsItsPlaceWhateverComesAndGoes) {
  QueueItem first, second;
  first.serial = 1;
  second.serial = 2;
  lines_.Join(kOne, &first);
  Pass(1000);
  lines_.Join(kOne, &second);
  EXPECT_EQ(second.waits_for, 1);
  Pass(1000);
  lines_.Leave(&first);
  EXPECT_EQ(second.waits_for, 0);
  lines_.Leave(&second);
}

TEST_F(SequenceLinesTest, WhatIsInFlightIsWaitedForWhateverComesAndGoes) {
  lines_.Hold(kOne);
  Pass(1000);
  QueueItem item;
  lines_.Join(kOne, &item);
  EXPECT_EQ(item.waits_for, 1);
  Pass(1000);
  lines_.LetGo(kOne);
  EXPECT_EQ(item.waits_for, 0);
  lines_.Leave(&item);
}

}  // namespace
}  // namespace gdn
