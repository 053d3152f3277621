#include "server/engine/row_plan.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gdn {
namespace {

using Action = RowPlan::Action;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

const absl::Time kNow = absl::UnixEpoch() + absl::Seconds(100);
constexpr uint64_t kFirstEpoch = 50;

class RowPlanTest : public ::testing::Test {
 protected:
  RowPlanTest() : table_(4, 2, kFirstEpoch), answers_(1000), lease_(&table_) {
    rules_ = {1, 2, false, kNow, kNow + absl::Seconds(60)};
    request_.input_layout = v1::INPUT_LAYOUT_HIDDEN;
    request_.step_id = 9;
    slot_ = table_.Allocate("live", kNow, kNow);
    cursor().position = 7;
    cursor().step_id = 8;
    cursor().step_position = 5;
    cursor().step_tokens = 2;
    cursor().step_layout = v1::INPUT_LAYOUT_HIDDEN;
  }

  LayerCursor& cursor() { return table_.At(slot_).layers[1]; }
  Fault Plan() { return PlanRows(request_, rules_, answers_, &table_, &lease_, &plan_); }
  // That row 0 is refused with `reason`, and nothing begins.
  void ExpectRefused(v1::ErrorReason reason) {
    const int used = table_.used();
    const Fault fault = Plan();
    EXPECT_EQ(v1::ErrorReason_Name(fault.reason), v1::ErrorReason_Name(reason));
    ASSERT_TRUE(fault.rows.contains(reason));
    EXPECT_THAT(fault.rows.at(reason).rows, ElementsAre(0));
    EXPECT_EQ(table_.used(), used);
  }
  void ExpectPlanned(Action action) {
    const Fault fault = Plan();
    ASSERT_TRUE(fault.ok()) << v1::ErrorReason_Name(fault.reason);
    EXPECT_EQ(plan_[0].action, action);
    EXPECT_EQ(plan_[0].slot, slot_);
  }

  SlotTable table_;
  AnswerStore answers_;
  StateLease lease_;
  RowRules rules_;
  StepRequest request_;
  std::vector<RowPlan> plan_;
  int32_t slot_;
};

TEST_F(RowPlanTest, PaddingTouchesNothing) {
  request_.create = true;
  request_.request_ids = {"", ""};
  request_.positions = {3, 4};
  ASSERT_TRUE(Plan().ok());
  for (const RowPlan& row : plan_) {
    EXPECT_EQ(row.action, Action::kPad);
    EXPECT_EQ(row.slot, kPadSlotId);
  }
  request_ = {};
  request_.slots = {-1, -7};
  request_.epochs = {1, 2};
  ASSERT_TRUE(Plan().ok());
  EXPECT_EQ(plan_[1].action, Action::kPad);
  EXPECT_EQ(plan_[1].slot, kPadSlotId);
  EXPECT_EQ(table_.used(), 1);
}

TEST_F(RowPlanTest, FindsALiveSequenceByIdOrBySlotAndEpoch) {
  request_.request_ids = {"live"};
  ExpectPlanned(Action::kFold);
  request_.epochs = {0};  // any epoch
  ExpectPlanned(Action::kFold);
  request_.epochs = {kFirstEpoch};
  ExpectPlanned(Action::kFold);
  request_.request_ids.clear();
  request_.slots = {slot_};
  ExpectPlanned(Action::kFold);
}

TEST_F(RowPlanTest, AnotherEpochIsNotFound) {
  request_.request_ids = {"live"};
  request_.epochs = {kFirstEpoch + 1};
  request_.create = true;
  ExpectRefused(v1::ERROR_REASON_SEQUENCE_NOT_FOUND);
  request_.create = false;
  request_.request_ids.clear();
  request_.slots = {slot_};
  ExpectRefused(v1::ERROR_REASON_SEQUENCE_NOT_FOUND);
  request_.epochs = {0};
  ExpectRefused(v1::ERROR_REASON_SEQUENCE_NOT_FOUND);
  request_.slots = {slot_ + 1};  // a free slot, whose record has epoch 0
  ExpectRefused(v1::ERROR_REASON_SEQUENCE_NOT_FOUND);
}

TEST_F(RowPlanTest, WhatExpiredSaysSo) {
  table_.Expire(slot_);
  request_.request_ids = {"live"};
  ExpectRefused(v1::ERROR_REASON_SEQUENCE_EXPIRED);
  request_.request_ids.clear();
  request_.slots = {slot_};
  request_.epochs = {kFirstEpoch};
  ExpectRefused(v1::ERROR_REASON_SEQUENCE_EXPIRED);
}

TEST_F(RowPlanTest, AnotherLifeOfAnExpiredIdIsNotFoundByItsOldEpoch) {
  table_.Expire(slot_);
  table_.Allocate("live", kNow, kNow);
  request_.request_ids = {"live"};
  request_.epochs = {kFirstEpoch};
  ExpectRefused(v1::ERROR_REASON_SEQUENCE_NOT_FOUND);
}

TEST_F(RowPlanTest, CreatesOnlyWhatStatesNeitherPositionNorEpoch) {
  request_.request_ids = {"new"};
  ExpectRefused(v1::ERROR_REASON_SEQUENCE_NOT_FOUND);
  request_.create = true;
  request_.positions = {1};
  ExpectRefused(v1::ERROR_REASON_SEQUENCE_NOT_FOUND);
  request_.positions = {0};
  request_.epochs = {4};
  ExpectRefused(v1::ERROR_REASON_SEQUENCE_NOT_FOUND);
  request_.epochs = {0};
  ASSERT_TRUE(Plan().ok());
  EXPECT_EQ(plan_[0].action, Action::kFold);
  const SequenceRecord& record = table_.At(plan_[0].slot);
  EXPECT_EQ(record.request_id, "new");
  EXPECT_EQ(record.epoch, kFirstEpoch + 1);
  EXPECT_EQ(record.expires, rules_.expires);
}

TEST_F(RowPlanTest, CreateLeavesALiveSequenceAsItIs) {
  request_.create = true;
  request_.request_ids = {"live"};
  ExpectPlanned(Action::kFold);
  EXPECT_EQ(cursor().position, 7u);
  request_.positions = {0};
  ExpectRefused(v1::ERROR_REASON_POSITION_MISMATCH);
}

TEST_F(RowPlanTest, APositionMustBeTheLayersOwn) {
  request_.request_ids = {"live"};
  request_.positions = {7};
  ExpectPlanned(Action::kFold);
  for (const uint64_t position : {0, 5, 6, 8}) {
    request_.positions = {position};
    ExpectRefused(v1::ERROR_REASON_POSITION_MISMATCH);
    EXPECT_THAT(Plan().rows.at(v1::ERROR_REASON_POSITION_MISMATCH).positions, ElementsAre(7));
  }
  rules_.layer = 0;  // nothing came here yet
  request_.positions = {0};
  ExpectPlanned(Action::kFold);
}

TEST_F(RowPlanTest, ZeroTokensAreCheckedAndTouch) {
  request_.request_ids = {"live"};
  request_.token_counts = {0};
  request_.step_id = 8;  // no replay either
  ExpectPlanned(Action::kTouch);
  request_.positions = {6};
  ExpectRefused(v1::ERROR_REASON_POSITION_MISMATCH);
  request_.positions = {};
  request_.create = true;
  request_.request_ids = {"new"};
  ASSERT_TRUE(Plan().ok());
  EXPECT_EQ(plan_[0].action, Action::kTouch);
  EXPECT_EQ(table_.used(), 2);
}

TEST_F(RowPlanTest, TheLastStepAgainIsAReplay) {
  request_.request_ids = {"live"};
  request_.step_id = 8;
  request_.token_counts = {2};
  ExpectPlanned(Action::kReplay);
  request_.positions = {5};
  ExpectPlanned(Action::kReplay);
  request_.step_id = 0;  // not to be replayed
  ExpectRefused(v1::ERROR_REASON_POSITION_MISMATCH);
}

TEST_F(RowPlanTest, AStepIdOfAnotherStepIsRefused) {
  request_.request_ids = {"live"};
  request_.step_id = 8;
  request_.token_counts = {1};
  ExpectRefused(v1::ERROR_REASON_STEP_ID_REUSED);
  request_.token_counts = {2};
  request_.positions = {7};
  ExpectRefused(v1::ERROR_REASON_STEP_ID_REUSED);
  request_.positions = {5};
  request_.input_layout = v1::INPUT_LAYOUT_QKV_B_A;
  ExpectRefused(v1::ERROR_REASON_STEP_ID_REUSED);
  rules_.layer = 0;  // there it is new
  request_.positions = {0};
  ExpectPlanned(Action::kFold);
}

TEST_F(RowPlanTest, ALargeAnswerIsReplayedWhileItIsKept) {
  cursor().step_tokens = 3;
  request_.request_ids = {"live"};
  request_.step_id = 8;
  request_.token_counts = {3};
  ExpectRefused(v1::ERROR_REASON_ANSWER_NOT_KEPT);
  answers_.Put(kFirstEpoch, 1, 4);
  ExpectPlanned(Action::kReplay);
}

TEST_F(RowPlanTest, APoisonedSequenceIsLostButItsFenceHolds) {
  table_.At(slot_).poisoned = true;
  request_.request_ids = {"live"};
  request_.create = true;
  ExpectRefused(v1::ERROR_REASON_STATE_POISONED);
  request_.step_id = 8;
  request_.token_counts = {2};
  ExpectRefused(v1::ERROR_REASON_STATE_POISONED);
  request_.token_counts = {0};
  ExpectRefused(v1::ERROR_REASON_STATE_POISONED);
  request_.epochs = {kFirstEpoch + 1};
  ExpectRefused(v1::ERROR_REASON_SEQUENCE_NOT_FOUND);
}

TEST_F(RowPlanTest, NothingBeginsWhileDraining) {
  rules_.draining = true;
  request_.create = true;
  request_.request_ids = {"new"};
  ExpectRefused(v1::ERROR_REASON_DRAINING);
  request_.request_ids = {"live"};
  ExpectPlanned(Action::kFold);
}

TEST_F(RowPlanTest, NamesTheRowsForWhichThereIsNoSlot) {
  request_.create = true;
  request_.request_ids = {"live", "a", "b", "", "c", "d", "e"};
  const Fault fault = Plan();
  EXPECT_EQ(fault.reason, v1::ERROR_REASON_SLOTS_EXHAUSTED);
  EXPECT_THAT(fault.rows.at(v1::ERROR_REASON_SLOTS_EXHAUSTED).rows, ElementsAre(5, 6));
  EXPECT_EQ(table_.used(), 1);
}

TEST_F(RowPlanTest, NamesEveryBadRowByItsReason) {
  request_.create = true;
  request_.request_ids = {"", "live", "new", "gone", "away"};
  request_.positions = {0, 1, 0, 2, 3};
  const Fault fault = Plan();
  EXPECT_EQ(fault.reason, v1::ERROR_REASON_POSITION_MISMATCH);  // of the lowest row
  EXPECT_EQ(fault.rows.size(), 2u);
  EXPECT_THAT(fault.rows.at(v1::ERROR_REASON_POSITION_MISMATCH).rows, ElementsAre(1));
  EXPECT_THAT(fault.rows.at(v1::ERROR_REASON_POSITION_MISMATCH).positions, ElementsAre(7));
  EXPECT_THAT(fault.rows.at(v1::ERROR_REASON_SEQUENCE_NOT_FOUND).rows, ElementsAre(3, 4));
  EXPECT_THAT(fault.rows.at(v1::ERROR_REASON_SEQUENCE_NOT_FOUND).positions, IsEmpty());
  EXPECT_FALSE(table_.Find("new").has_value());
}

}  // namespace
}  // namespace gdn
