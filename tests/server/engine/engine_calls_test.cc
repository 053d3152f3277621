// Calls in the engine's queue: how many, how long, and what becomes of them.
#include "absl/strings/str_cat.h"
#include "tests/server/engine/engine_harness.h"

namespace gdn::test {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

using EngineCallsTest = EngineHarness;

TEST_F(EngineCallsTest, CallsAreGivenUpUntilTheyRun) {
  Begin("a");
  int calls = 0;
  const auto run = [&](absl::Time) { ++calls; };
  SendCall({{"a"}, false, true}, run)->cancelled = true;
  SendCall({{}, true, false}, run)->deadline = now_ - absl::Nanoseconds(1);
  const auto behind = Send(StepKind::kDecode, ById({"a"}), Hidden({2}));
  SendCall({{"a"}, false, false}, run);
  RunAll();
  EXPECT_EQ(calls, 1);
  EXPECT_THAT(refusals_, ElementsAre(v1::ERROR_REASON_QUEUE_FULL, v1::ERROR_REASON_QUEUE_FULL));
  EXPECT_TRUE(behind->ok());
}

TEST_F(EngineCallsTest, CallsThatWaitAreBoundedAndStepsTakeNoRoomFromThem) {
  for (int i = 0; i < 6; ++i) Send(StepKind::kDecode, ById({absl::StrCat(i)}), Hidden({1}));
  int calls = 0;
  const auto run = [&](absl::Time) { ++calls; };
  const auto given_up = SendCall({{"0"}, false, true}, run);
  for (int i = 1; i < 6; ++i) SendCall({{absl::StrCat(i)}, false, true}, run);
  EXPECT_THAT(refusals_, IsEmpty());
  SendCall({{"a"}, false, true}, run);
  EXPECT_THAT(refusals_, ElementsAre(v1::ERROR_REASON_QUEUE_FULL));
  given_up->cancelled = true;
  ASSERT_TRUE(engine_->Step(now_));
  SendCall({{"a"}, false, true}, run);  // in the room of the one given up
  RunAll();
  EXPECT_EQ(calls, 6);
  EXPECT_THAT(refusals_, ElementsAre(v1::ERROR_REASON_QUEUE_FULL, v1::ERROR_REASON_QUEUE_FULL));
  for (int i = 0; i < 6; ++i) SendCall({{"a"}, false, true}, run);  // all of it is free again
  EXPECT_EQ(refusals_.size(), 2u);
}

TEST_F(EngineCallsTest, CloseRefusesStepsAndRunsCalls) {
  const auto waiting = Send(StepKind::kDecode, ById({"a"}, true), Hidden({1}));
  int calls = 0;
  SendCall({{"a"}, false, true}, [&](absl::Time) { ++calls; });
  engine_->Close(now_);
  ExpectFault(*waiting, v1::ERROR_REASON_DRAINING, {});
  EXPECT_EQ(calls, 1);
  ExpectFault(*Send(StepKind::kDecode, ById({"a"}, true), Hidden({1})), v1::ERROR_REASON_DRAINING,
              {});
  SendCall({{}, true, false}, [&](absl::Time) { ++calls; });
  EXPECT_THAT(refusals_, ElementsAre(v1::ERROR_REASON_DRAINING));
  EXPECT_FALSE(engine_->Step(now_));
  EXPECT_EQ(calls, 1);
}

}  // namespace
}  // namespace gdn::test
