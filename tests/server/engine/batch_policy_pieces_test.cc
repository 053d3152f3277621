// The policy between the pieces of prefills.
#include "tests/server/engine/batch_policy_harness.h"

namespace gdn::test {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

using BatchPolicyPieces = BatchPolicyHarness;

TEST_F(BatchPolicyPieces, DecodesGoBetweenThePiecesOfAPrefill) {
  Cut({1}, true);
  EXPECT_THAT(Chosen(true), ElementsAre(0));
  Decode({2});
  Decode({3});
  EXPECT_THAT(Chosen(true), ElementsAre(1, 2));
  EXPECT_THAT(Chosen(false), ElementsAre(1, 2));
  // It waited long: with the decodes in turn.
  EXPECT_THAT(Chosen(false, absl::Seconds(1)), ElementsAre(0));
  EXPECT_THAT(Chosen(true, absl::Seconds(1)), ElementsAre(1, 2));
}

TEST_F(BatchPolicyPieces, EverythingOfItsSequencesWaitsForAPrefillThatHasBegun) {
  Decode({1, 7}, 1);
  Call({1});
  Add(Kind::kCall, {}).waits_for_all = true;
  Cut({1}, true);
  Decode({1}, 2);
  EndingCall({1});
  EXPECT_THAT(Chosen(true), ElementsAre(3));
  Remove({3});
  EXPECT_THAT(Chosen(true), ElementsAre(0));
}

TEST_F(BatchPolicyPieces, OtherCallsRunBetweenPieces) {
  Cut({1}, true);
  Call({2});
  EXPECT_THAT(Chosen(true), ElementsAre(1));
}

// The decode's priority is its prefill's, and so the other's, but no further than past one decode.
TEST_F(BatchPolicyPieces, OneCutPrefillIsUnderWayAtATime) {
  Cut({1}, true);
  Cut({2});
  Decode({2});
  Decode({3});
  EXPECT_THAT(Chosen(false), ElementsAre(0));
  EXPECT_THAT(Chosen(true), ElementsAre(3));
  Remove({0});
  EXPECT_THAT(Chosen(false), ElementsAre(0));
}

TEST_F(BatchPolicyPieces, APrefillOfOnePieceMayPassForItsDecode) {
  Cut({1}, true);
  Prefill({2});
  EXPECT_THAT(Chosen(true), ElementsAre(0));
  Decode({2});
  EXPECT_THAT(Chosen(true), ElementsAre(1));
}

TEST_F(BatchPolicyPieces, APieceBeginsBesideTheOneBefore) {
  Cut({1});
  Launch();
  Cut({1}, true);
  EXPECT_THAT(Chosen(true), ElementsAre(0));
  Decode({1}, 1);
  Decode({2});
  EXPECT_THAT(Chosen(true), ElementsAre(2));
  Launch();
  EXPECT_THAT(Chosen(false), IsEmpty());  // beside decodes no prefill begins
  Remove({0});
  EXPECT_THAT(Chosen(false), IsEmpty());  // its last piece is in flight
  Land();
  EXPECT_THAT(Chosen(false), ElementsAre(0));
}

TEST_F(BatchPolicyPieces, ACutPrefillWaitsForTheLastPieceOfAnotherToBegin) {
  Cut({1});
  Launch();
  Cut({1}, true);
  Cut({2});
  Prefill({3});
  EXPECT_THAT(Chosen(true), ElementsAre(0));
  Remove({0});
  EXPECT_THAT(Chosen(true), ElementsAre(0));
}

}  // namespace
}  // namespace gdn::test
