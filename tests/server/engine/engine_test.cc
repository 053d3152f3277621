#include "server/engine/engine.h"

#include <limits>

#include "absl/strings/str_cat.h"
#include "tests/server/engine/engine_harness.h"

namespace gdn::test {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

using EngineTest = EngineHarness;

TEST_F(EngineTest, FoldsTokensAndAnswersRows) {
  FakeState state;
  StepRequest request = ById({"a"}, true);
  request.token_counts = {3};
  auto outcome = Prefill(request, Hidden({1, 2, 3}));
  ASSERT_TRUE(outcome->ok()) << outcome->fault.message;
  EXPECT_EQ(outcome->output(), Foretell(Hidden({1, 2, 3}), &state));
  EXPECT_THAT(outcome->answer.epochs, ElementsAre(kFirstEpoch));
  EXPECT_EQ(engine_->slots_used(), 1);

  outcome = Decode(BySlot({outcome->answer.slots[0]}, {kFirstEpoch}), Hidden({4}));
  ASSERT_TRUE(outcome->ok());
  EXPECT_EQ(outcome->output(), Foretell(Hidden({4}), &state));
  EXPECT_THAT(outcome->answer.slots, IsEmpty());
  EXPECT_EQ(PositionOf("a"), 4u);
}

TEST_F(EngineTest, EveryLayerHasItsOwnStateAndPosition) {
  Begin("a");
  StepRequest request = ById({"a"});
  request.layer = 7;
  FakeState state;
  const auto outcome = Decode(request, Hidden({5}));
  EXPECT_EQ(outcome->output(), Foretell(Hidden({5}), &state));
  Decode(request, Hidden({6}));
  EXPECT_EQ(PositionOf("a", 0), 1u);
  EXPECT_EQ(PositionOf("a", 1), 2u);
  EXPECT_EQ(backend_.runs().back().layer, 1);
}

TEST_F(EngineTest, NothingOfAnEarlierTenantShows) {
  const int32_t slot = Begin("a");
  engine_->Release(slot);
  FakeState state;
  const auto outcome = Decode(ById({"b"}, true), Hidden({9}));
  EXPECT_EQ(outcome->answer.slots[0], slot);
  EXPECT_EQ(outcome->output(), Foretell(Hidden({9}), &state));
}

TEST_F(EngineTest, PaddingRowsAreZeroAndTouchNothing) {
  Begin("a");
  FakeState state;
  Foretell(Hidden({1}), &state);
  const auto outcome = Decode(ById({"", "a", ""}), Hidden({kNan, 2, kOverflowing}));
  ASSERT_TRUE(outcome->ok()) << outcome->fault.message;
  const std::vector<float> output = outcome->output();
  const std::vector<float> row = Foretell(Hidden({2}), &state);
  EXPECT_THAT(std::vector<float>(output.begin(), output.begin() + 4), Each(0));
  EXPECT_EQ(std::vector<float>(output.begin() + 4, output.begin() + 8), row);
  EXPECT_THAT(std::vector<float>(output.begin() + 8, output.end()), Each(0));
  EXPECT_THAT(outcome->answer.slots, ElementsAre(-1, SlotOf("a"), -1));
  EXPECT_THAT(outcome->answer.epochs, ElementsAre(0, EpochOf("a"), 0));
}

TEST_F(EngineTest, ARowOfNoTokensBeginsAndRenewsButFoldsNothing) {
  StepRequest request = ById({"a"}, true);
  request.token_counts = {0};
  const auto outcome = Prefill(request, "");
  ASSERT_TRUE(outcome->ok());
  EXPECT_EQ(outcome->answer.output.size, 0u);
  EXPECT_EQ(PositionOf("a"), 0u);
  now_ += kTtl;
  Prefill(request, "");
  now_ += kTtl;
  EXPECT_TRUE(Prefill(request, "")->ok());
  EXPECT_EQ(EpochOf("a"), kFirstEpoch);
}

TEST_F(EngineTest, SyntheticInputNeedsNoBytes) {
  StepRequest request = ById({"a", "b"}, true);
  request.synthetic_seed = 3;
  const auto outcome = Decode(request, "");
  ASSERT_TRUE(outcome->ok());
  EXPECT_EQ(outcome->output()[0], 1);
  EXPECT_EQ(outcome->output()[4], 1);
}

TEST_F(EngineTest, ARefusedBatchRunsNothing) {
  Begin("a");
  const size_t runs = backend_.runs().size();
  StepRequest request = ById({"a", "gone", "b"}, true);
  request.positions = {1, 4, 0};
  const auto outcome = Decode(request, Hidden({1, 2, 3}));
  ExpectFault(*outcome, v1::ERROR_REASON_SEQUENCE_NOT_FOUND, {1});
  EXPECT_EQ(outcome->fault.message, "row 1: SEQUENCE_NOT_FOUND");
  EXPECT_EQ(backend_.runs().size(), runs);
  EXPECT_EQ(PositionOf("a"), 1u);
  EXPECT_FALSE(Lives("b"));
}

TEST_F(EngineTest, APositionMismatchSaysWhereTheSequenceIs) {
  Begin("a");
  StepRequest request = ById({"", "a"});
  request.positions = {0, 5};
  const auto outcome = Decode(request, Hidden({0, 1}));
  ExpectFault(*outcome, v1::ERROR_REASON_POSITION_MISMATCH, {1});
  EXPECT_THAT(outcome->fault.rows.at(v1::ERROR_REASON_POSITION_MISMATCH).positions, ElementsAre(1));
  EXPECT_EQ(outcome->fault.message, "row 1: POSITION_MISMATCH, it is at 1");
}

TEST_F(EngineTest, NonFiniteRowsAreNamedAndTheOthersCommit) {
  Begin("a");
  Begin("b");
  StepRequest request = ById({"a", "b", "new", "other"}, true);
  request.step_id = 5;
  const auto outcome =
      Decode(request, Hidden({kNan, 2, -std::numeric_limits<float>::infinity(), 4}));
  ExpectFault(*outcome, v1::ERROR_REASON_NON_FINITE_INPUT, {0, 2});
  EXPECT_THAT(outcome->fault.message, HasSubstr("row 0 (and 1 more)"));
  EXPECT_EQ(PositionOf("a"), 1u);
  EXPECT_EQ(PositionOf("b"), 2u);
  EXPECT_FALSE(Lives("new"));
  EXPECT_EQ(engine_->slots_used(), 3);

  request.request_ids = {"", "b", "", "other"};
  const auto again = Decode(request, Hidden({kNan, 2, 3, 4}));
  ASSERT_TRUE(again->ok());
  EXPECT_EQ(again->answer.replayed_rows, 2u);
  FakeState a;
  Foretell(Hidden({1}), &a);
  EXPECT_EQ(Decode(ById({"a"}), Hidden({7}))->output(), Foretell(Hidden({7}), &a));
}

TEST_F(EngineTest, AnOverflowPoisonsUntilTheSequenceIsReleased) {
  const int32_t slot = Begin("a");
  ExpectFault(*Decode(ById({"a", "b"}, true), Hidden({kOverflowing, kOverflowing})),
              v1::ERROR_REASON_STATE_POISONED, {0, 1});
  EXPECT_TRUE(engine_->table().At(slot).poisoned);
  EXPECT_FALSE(Lives("b"));
  ExpectFault(*Decode(ById({"a"}, true), Hidden({1})), v1::ERROR_REASON_STATE_POISONED, {0});
  engine_->Release(slot);
  FakeState state;
  EXPECT_EQ(Decode(ById({"a"}, true), Hidden({1}))->output(), Foretell(Hidden({1}), &state));
  EXPECT_EQ(devices_lost_, 0);
}

TEST_F(EngineTest, ADeviceFailureOfARowPoisonsThatRow) {
  Begin("a");
  Begin("b");
  ExpectFault(*Decode(ById({"b", "a"}), Hidden({2, kDeviceFailing})), v1::ERROR_REASON_DEVICE_ERROR,
              {1});
  ExpectFault(*Decode(ById({"a"}), Hidden({2})), v1::ERROR_REASON_STATE_POISONED, {0});
  EXPECT_EQ(PositionOf("b"), 2u);
  EXPECT_EQ(devices_lost_, 0);
}

TEST_F(EngineTest, AStoredAnswerThatTheDeviceDoesNotGiveBackIsADeviceError) {
  Begin("a");
  StepRequest request = ById({"a", "b"}, true);
  request.step_id = 5;
  Decode(request, Hidden({2, 3}));
  backend_.FailReads();
  request.request_ids = {"a", "c"};
  ExpectFault(*Decode(request, Hidden({2, kNan})), v1::ERROR_REASON_DEVICE_ERROR, {0});
  ExpectFault(*Decode(ById({"a"}), Hidden({2})), v1::ERROR_REASON_STATE_POISONED, {0});
}

TEST_F(EngineTest, ALostDeviceIsToldOnceAndRefusesEverything) {
  Begin("a");
  Begin("b");
  backend_.LoseDevice();
  StepRequest prefill = ById({"b", "new"}, true);
  const auto decode = Send(StepKind::kDecode, ById({"a", ""}), Hidden({2, 2}));
  const auto waiting = Send(StepKind::kPrefill, prefill, Hidden({2, 2}));
  const auto padding = Send(StepKind::kPrefill, ById({""}), Hidden({2}));
  RunAll();
  ExpectFault(*decode, v1::ERROR_REASON_DEVICE_ERROR, {0});
  ExpectFault(*waiting, v1::ERROR_REASON_DEVICE_ERROR, {0, 1});
  ExpectFault(*padding, v1::ERROR_REASON_DEVICE_ERROR, {});
  EXPECT_EQ(devices_lost_, 1);
  EXPECT_TRUE(engine_->table().At(SlotOf("a")).poisoned);
  EXPECT_TRUE(engine_->table().At(SlotOf("b")).poisoned);
  EXPECT_FALSE(Lives("new"));
  ExpectFault(*Send(StepKind::kDecode, ById({"a"}), Hidden({3})), v1::ERROR_REASON_DEVICE_ERROR,
              {});
  EXPECT_EQ(engine_->waiting(), 0u);
}

TEST_F(EngineTest, MergedDecodesKeepTheirOwnFaults) {
  for (const char* id : {"a", "b", "c", "d"}) Begin(id);
  const size_t before = backend_.runs().size();
  StepRequest behind = ById({"d"});
  behind.positions = {0};
  const auto good = Send(StepKind::kDecode, ById({"a"}), Hidden({2}));
  const auto bad_input = Send(StepKind::kDecode, ById({"b", "c"}), Hidden({2, kNan}));
  const auto bad_position = Send(StepKind::kDecode, behind, Hidden({2}));
  RunAll();
  ASSERT_EQ(backend_.runs().size(), before + 1);
  EXPECT_EQ(backend_.runs().back().parts, 2u);
  EXPECT_THAT(backend_.runs().back().slots, ElementsAre(SlotOf("a"), SlotOf("b"), SlotOf("c")));
  FakeState state;
  Foretell(Hidden({1}), &state);
  EXPECT_EQ(good->output(), Foretell(Hidden({2}), &state));
  ExpectFault(*bad_input, v1::ERROR_REASON_NON_FINITE_INPUT, {1});
  ExpectFault(*bad_position, v1::ERROR_REASON_POSITION_MISMATCH, {0});
  EXPECT_EQ(PositionOf("b"), 2u);
  EXPECT_EQ(PositionOf("c"), 1u);
}

TEST_F(EngineTest, RequestsThatShareASequenceRunOneAfterAnother) {
  const int32_t slot = Begin("a");
  const auto by_id = Send(StepKind::kDecode, ById({"a"}), Hidden({2}));
  const auto by_slot = Send(StepKind::kDecode, BySlot({slot}, {kFirstEpoch}), Hidden({3}));
  RunAll();
  FakeState state;
  Foretell(Hidden({1}), &state);
  EXPECT_EQ(by_id->output(), Foretell(Hidden({2}), &state));
  EXPECT_EQ(by_slot->output(), Foretell(Hidden({3}), &state));
  EXPECT_EQ(backend_.runs().back().parts, 1u);
}

// Were it to find the sequence that is begun beside it, one slot would be in the batch twice.
TEST_F(EngineTest, AnEpochGuessedBeforeItsSequenceBeganIsNotFound) {
  const auto begins = Send(StepKind::kDecode, ById({"a"}, true), Hidden({1}));
  const auto guess = Send(StepKind::kDecode, BySlot({0}, {kFirstEpoch}), Hidden({2}));
  RunAll();
  EXPECT_TRUE(begins->ok());
  EXPECT_EQ(EpochOf("a"), kFirstEpoch);
  EXPECT_EQ(SlotOf("a"), 0);
  ExpectFault(*guess, v1::ERROR_REASON_SEQUENCE_NOT_FOUND, {0});
  EXPECT_EQ(PositionOf("a"), 1u);
}

TEST_F(EngineTest, SlotsAreExhausted) {
  const auto outcome = Decode(ById({"a", "b", "c", "d", "e"}, true), Hidden({1, 1, 1, 1, 1}));
  ExpectFault(*outcome, v1::ERROR_REASON_SLOTS_EXHAUSTED, {4});
  EXPECT_EQ(engine_->slots_used(), 0);
}

TEST_F(EngineTest, ReleaseAfterActsOnlyWhenTheCallAnswersOk) {
  StepRequest request = ById({"a", "b"}, true);
  request.release_after = true;
  const auto failed = Decode(request, Hidden({1, kNan}));
  ExpectFault(*failed, v1::ERROR_REASON_NON_FINITE_INPUT, {1});
  EXPECT_TRUE(Lives("a"));
  const auto outcome = Decode(request, Hidden({2, 2}));
  ASSERT_TRUE(outcome->ok());
  EXPECT_EQ(outcome->output()[0], 2);
  EXPECT_NE(outcome->answer.epochs[1], 0u);
  EXPECT_EQ(engine_->slots_used(), 0);
}

TEST_F(EngineTest, StepsAreGivenUpUntilTheirLaunch) {
  Begin("a");
  const auto cancelled = Send(StepKind::kDecode, ById({"a"}), Hidden({2}));
  last_step_->cancelled = true;
  auto [step, late] = NewStep(StepKind::kDecode, ById({"a"}), Hidden({3}));
  step->deadline = now_ - absl::Nanoseconds(1);
  engine_->Submit(std::move(step), now_);
  RunAll();
  EXPECT_FALSE(cancelled->ok());
  EXPECT_EQ(cancelled->times, 1);
  ExpectFault(*late, v1::ERROR_REASON_QUEUE_FULL, {});
  EXPECT_EQ(PositionOf("a"), 1u);
  EXPECT_EQ(engine_->waiting(), 0u);
}

TEST_F(EngineTest, AFullQueueRefusesAtOnce) {
  for (int i = 0; i < 6; ++i) Send(StepKind::kDecode, ById({absl::StrCat(i)}), Hidden({1}));
  ExpectFault(*Send(StepKind::kDecode, ById({"a"}), Hidden({1})), v1::ERROR_REASON_QUEUE_FULL, {});
  RunAll();
  EXPECT_TRUE(Begin("a") >= 0);
}

TEST_F(EngineTest, NoSequenceBeginsWhileDrainingButLiveOnesGoOn) {
  Begin("a");
  engine_->Drain();
  ExpectFault(*Decode(ById({"b", "a"}, true), Hidden({1, 1})), v1::ERROR_REASON_DRAINING, {0});
  EXPECT_TRUE(Decode(ById({"a"}, true), Hidden({2}))->ok());
}

TEST_F(EngineTest, ALeaseEndsOnceItsTimeHasPassed) {
  const int32_t slot = Begin("a");
  EXPECT_EQ(engine_->next_expiry(), now_ + kTtl);
  now_ += kTtl;
  RunAll();
  EXPECT_EQ(engine_->slots_used(), 1);
  now_ += absl::Nanoseconds(1);
  RunAll();
  EXPECT_EQ(engine_->slots_used(), 0);
  ExpectFault(*Decode(ById({"a"}), Hidden({2})), v1::ERROR_REASON_SEQUENCE_EXPIRED, {0});
  ExpectFault(*Decode(BySlot({slot}, {kFirstEpoch}), Hidden({2})),
              v1::ERROR_REASON_SEQUENCE_EXPIRED, {0});
  EXPECT_TRUE(Decode(ById({"a"}, true), Hidden({2}))->ok());
  EXPECT_NE(EpochOf("a"), kFirstEpoch);
}

TEST_F(EngineTest, ALeaseRunsFromTheEndOfAStep) {
  Send(StepKind::kDecode, ById({"a"}, true), Hidden({1}));
  ASSERT_TRUE(engine_->Step(now_));
  now_ += kTtl / 2;  // so long the step took
  ASSERT_FALSE(engine_->Step(now_));
  now_ += kTtl;
  RunAll();
  EXPECT_TRUE(Lives("a"));
}

TEST_F(EngineTest, ALeaseNeverEndsUnderAStepThatCameInTime) {
  Begin("a");
  const int32_t slot = SlotOf("a");
  const auto in_time = Send(StepKind::kDecode, BySlot({slot}, {kFirstEpoch}), Hidden({2}));
  now_ += 2 * kTtl;
  RunAll();
  EXPECT_TRUE(in_time->ok());
  now_ += 2 * kTtl;
  const auto late = Decode(ById({"a"}), Hidden({2}));
  ExpectFault(*late, v1::ERROR_REASON_SEQUENCE_EXPIRED, {0});
}

}  // namespace
}  // namespace gdn::test
