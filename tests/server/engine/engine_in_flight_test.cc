// The engine over a backend that takes two batches: a Step begins one where it may, and waits for
// the oldest once there are two or none may begin.
#include <limits>

#include "tests/server/engine/engine_harness.h"

namespace gdn::test {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

class EngineInFlight : public EngineHarness {
 protected:
  EngineInFlight() : EngineHarness(2) {}

  static StepRequest Tokens(StepRequest request, uint32_t count) {
    request.token_counts = {count};
    return request;
  }
  // A prefill that begins a sequence.
  std::shared_ptr<Outcome> SendPrefill(const std::string& id, std::string input = Hidden({1, 2})) {
    const auto tokens = static_cast<uint32_t>(input.size() / 16);
    return Send(StepKind::kPrefill, Tokens(ById({id}, true), tokens), std::move(input));
  }
  std::shared_ptr<Outcome> SendDecode(const std::string& id, int layer = 3, float token = 2) {
    StepRequest request = ById({id});
    request.layer = static_cast<uint32_t>(layer);
    return Send(StepKind::kDecode, request, Hidden({token}));
  }
  bool Step() { return engine_->Step(now_); }
  size_t begun() const { return backend_.runs().size(); }
};

// Whoever is answered may look at once.
TEST_F(EngineInFlight, SlotsUsedAreThoseOfTheAnswer) {
  for (const bool release : {false, true}) {
    StepRequest request = ById({"a"}, true);
    request.release_after = release;
    auto [step, outcome] = NewStep(StepKind::kDecode, std::move(request), Hidden({1}));
    int used = -1;
    step->done = [&](const Fault&, const StepAnswer&) { used = engine_->slots_used(); };
    engine_->Submit(step, now_);
    RunAll();
    EXPECT_EQ(used, release ? 0 : 1);
  }
}

TEST_F(EngineInFlight, OneThatRunsAloneIsToldOnceThatItHasBegun) {
  auto [step, outcome] = NewStep(StepKind::kDecode, ById({"a"}, true), Hidden({1}));
  int told = 0;
  step->begun = [&told, outcome = outcome] {
    EXPECT_EQ(outcome->times, 0);
    ++told;
  };
  engine_->Submit(step, now_);
  EXPECT_TRUE(Step());
  EXPECT_EQ(told, 1);
  RunAll();
  EXPECT_TRUE(outcome->ok());
  EXPECT_EQ(told, 1);
}

TEST_F(EngineInFlight, OneBesideOthersIsNotToldThatItHasBegun) {
  std::vector<std::shared_ptr<Outcome>> outcomes;
  for (const char* id : {"a", "b"}) {
    auto [step, outcome] = NewStep(StepKind::kPrefill, Tokens(ById({id}, true), 1), Hidden({1}));
    step->begun = [&] { EXPECT_THAT(outcomes, SizeIs(2)) << "not the second, which is alone"; };
    if (outcomes.empty()) step->begun = [] { ADD_FAILURE() << "another one waits"; };
    engine_->Submit(step, now_);
    outcomes.push_back(outcome);
  }
  RunAll();
  for (const auto& outcome : outcomes) EXPECT_TRUE(outcome->ok());
}

TEST_F(EngineInFlight, OnALostDeviceNothingHasBegun) {
  backend_.LoseDevice();
  auto [step, outcome] = NewStep(StepKind::kDecode, ById({"a"}, true), Hidden({1}));
  step->begun = [] { ADD_FAILURE(); };
  engine_->Submit(step, now_);
  RunAll();
  EXPECT_FALSE(outcome->ok());
}

TEST_F(EngineInFlight, ABatchBeginsBesideAnother) {
  FakeState a, b;
  const auto first = SendPrefill("a", Hidden({1, 2}));
  const auto second = SendPrefill("b", Hidden({3}));
  EXPECT_TRUE(Step());
  EXPECT_EQ(first->times, 0);
  EXPECT_THAT(engine_->in_flight(), SizeIs(1));
  EXPECT_EQ(engine_->waiting(), 2u);
  EXPECT_TRUE(Step());
  EXPECT_EQ(backend_.runs().back().beside, 1u);
  EXPECT_TRUE(first->ok());
  EXPECT_EQ(second->times, 0);
  EXPECT_TRUE(Step());
  EXPECT_TRUE(second->ok());
  EXPECT_FALSE(Step());
  EXPECT_EQ(first->output(), Foretell(Hidden({1, 2}), &a));
  EXPECT_EQ(second->output(), Foretell(Hidden({3}), &b));
  EXPECT_NE(first->answer.slots, second->answer.slots);
}

TEST_F(EngineInFlight, OfASequenceThereIsOneStepInFlightWhateverItsLayer) {
  Begin("a");
  Begin("b");
  const auto here = SendDecode("a", 3);
  const auto there = SendDecode("a", 7);
  const auto again = SendDecode("a", 3, 3);
  const auto other = SendDecode("b", 7);
  EXPECT_TRUE(Step());
  EXPECT_TRUE(Step());  // b passes what waits for a
  EXPECT_EQ(backend_.runs().back().beside, 1u);
  EXPECT_THAT(backend_.runs().back().slots, ElementsAre(SlotOf("b")));
  EXPECT_TRUE(here->ok());
  RunAll();
  EXPECT_TRUE(there->ok() && again->ok() && other->ok());
  EXPECT_EQ(PositionOf("a", 0), 3u);
  EXPECT_EQ(PositionOf("a", 1), 1u);
  FakeState state;
  Foretell(Hidden({1, 2}), &state);
  EXPECT_EQ(again->output(), Foretell(Hidden({3}), &state));
}

// What it finds is what the step in flight leaves.
TEST_F(EngineInFlight, AStepBehindAReleaseBeginsItsSequenceAnew) {
  Begin("a");
  StepRequest last = ById({"a"});
  last.release_after = true;
  const auto ends = Send(StepKind::kDecode, last, Hidden({2}));
  StepRequest next = ById({"a"}, true);
  next.layer = 7;
  const auto begins = Send(StepKind::kDecode, next, Hidden({3}));
  RunAll();
  EXPECT_TRUE(ends->ok());
  ASSERT_TRUE(begins->ok());
  EXPECT_NE(EpochOf("a"), kFirstEpoch);
  EXPECT_EQ(PositionOf("a", 0), 0u);
}

TEST_F(EngineInFlight, WhatAFailedStepBeganIsGivenUpBesideAnother) {
  const auto bad = SendPrefill("bad", Hidden({kNan}));
  const auto good = SendPrefill("good");
  EXPECT_TRUE(Step());
  EXPECT_EQ(engine_->slots_used(), 1);
  // An epoch that no caller can know yet.
  const auto guess = Send(StepKind::kDecode, BySlot({SlotOf("bad")}, {kFirstEpoch}), Hidden({1}));
  RunAll();
  ExpectFault(*bad, v1::ERROR_REASON_NON_FINITE_INPUT, {0});
  EXPECT_TRUE(good->ok());
  ExpectFault(*guess, v1::ERROR_REASON_SEQUENCE_NOT_FOUND, {0});
  EXPECT_FALSE(Lives("bad"));
  EXPECT_TRUE(Lives("good"));
  EXPECT_EQ(engine_->slots_used(), 1);
}

TEST_F(EngineInFlight, AnEpochGuessedInFlightIsNotFoundThoughTheStepSucceeds) {
  const auto begins = SendPrefill("a");
  EXPECT_TRUE(Step());
  const auto guess = Send(StepKind::kDecode, BySlot({SlotOf("a")}, {kFirstEpoch}), Hidden({1}));
  RunAll();
  EXPECT_TRUE(begins->ok());
  ExpectFault(*guess, v1::ERROR_REASON_SEQUENCE_NOT_FOUND, {0});
}

TEST_F(EngineInFlight, ACallRunsOnceNothingIsInFlight) {
  const auto before = SendPrefill("a");
  EXPECT_TRUE(Step());
  bool ran = false;
  SendCall({}, [&](absl::Time) {
    ran = true;
    EXPECT_TRUE(before->ok());
    EXPECT_THAT(engine_->in_flight(), IsEmpty());
  });
  const auto behind = SendPrefill("b");
  EXPECT_TRUE(Step());
  EXPECT_FALSE(ran);
  EXPECT_TRUE(Step());
  EXPECT_TRUE(ran);
  EXPECT_EQ(begun(), 1u);
  RunAll();
  EXPECT_TRUE(behind->ok());
}

TEST_F(EngineInFlight, ADeviceLostAtAnEndPoisonsAllThatIsInFlight) {
  for (const char* id : {"a", "b", "c"}) Begin(id);
  const auto first = Send(StepKind::kPrefill, ById({"a"}), Hidden({2}));
  const auto second = Send(StepKind::kPrefill, ById({"b"}), Hidden({2}));
  const size_t before = begun();
  EXPECT_TRUE(Step());
  backend_.FailEnds();
  EXPECT_TRUE(Step());
  EXPECT_EQ(begun(), before + 2);
  ExpectFault(*first, v1::ERROR_REASON_DEVICE_ERROR, {0});
  const auto late = SendDecode("c");
  RunAll();
  ExpectFault(*second, v1::ERROR_REASON_DEVICE_ERROR, {0});
  ExpectFault(*late, v1::ERROR_REASON_DEVICE_ERROR, {});
  EXPECT_EQ(devices_lost_, 1);
  EXPECT_TRUE(engine_->table().At(SlotOf("a")).poisoned);
  EXPECT_TRUE(engine_->table().At(SlotOf("b")).poisoned);
  EXPECT_FALSE(engine_->table().At(SlotOf("c")).poisoned);
  EXPECT_EQ(engine_->waiting(), 0u);
}

TEST_F(EngineInFlight, ADeviceLostAtABeginPoisonsAllThatIsInFlight) {
  Begin("a");
  const auto first = Send(StepKind::kPrefill, ById({"a"}), Hidden({2}));
  const auto second = SendPrefill("new");
  EXPECT_TRUE(Step());
  backend_.LoseDevice();
  RunAll();
  ExpectFault(*first, v1::ERROR_REASON_DEVICE_ERROR, {0});
  ExpectFault(*second, v1::ERROR_REASON_DEVICE_ERROR, {0});
  EXPECT_EQ(devices_lost_, 1);
  EXPECT_TRUE(engine_->table().At(SlotOf("a")).poisoned);
  EXPECT_FALSE(Lives("new"));
}

TEST_F(EngineInFlight, NoLeaseEndsInFlight) {
  Begin("a");
  Begin("idle");
  const auto step = SendDecode("a");
  EXPECT_TRUE(Step());
  now_ += 2 * kTtl;
  EXPECT_TRUE(Step());
  EXPECT_TRUE(step->ok());
  EXPECT_TRUE(Lives("a"));
  EXPECT_FALSE(Lives("idle"));
  now_ += kTtl;  // the end of the step is now
  EXPECT_FALSE(Step());
  now_ += kTtl;
  EXPECT_FALSE(Step());
  EXPECT_TRUE(Lives("a"));
  now_ += absl::Nanoseconds(1);
  EXPECT_FALSE(Step());
  EXPECT_FALSE(Lives("a"));
}

TEST_F(EngineInFlight, NothingInFlightIsGivenUp) {
  const auto step = SendPrefill("a");
  EXPECT_TRUE(Step());
  last_step_->cancelled = true;
  last_step_->deadline = now_;
  now_ += absl::Seconds(1);
  RunAll();
  EXPECT_TRUE(step->ok());
}

TEST_F(EngineInFlight, CloseEndsWhatIsInFlight) {
  const auto running = SendPrefill("a");
  EXPECT_TRUE(Step());
  const auto waiting = SendPrefill("b");
  engine_->Close(now_);
  EXPECT_TRUE(running->ok());
  EXPECT_EQ(waiting->fault.reason, v1::ERROR_REASON_DRAINING);
  EXPECT_EQ(engine_->waiting(), 0u);
}

// The store has room for one of the two.
TEST_F(EngineInFlight, AStoredAnswerOutlivesItsEvictionInFlight) {
  const std::string input = Hidden({1, 2, 3, 4, 5, 6});
  StepRequest request = Tokens(ById({"a"}, true), 6);
  request.step_id = 5;
  const auto first = Prefill(request, input);
  StepRequest other = request;
  other.request_ids = {"b"};
  Send(StepKind::kPrefill, other, Hidden({7, 8, 9, 10, 11, 12}));
  const auto again = Send(StepKind::kPrefill, request, input);
  RunAll();
  ASSERT_TRUE(again->ok()) << again->fault.message;
  EXPECT_EQ(again->answer.replayed_rows, 1u);
  EXPECT_EQ(again->output(), first->output());
  ExpectFault(*Prefill(request, input), v1::ERROR_REASON_ANSWER_NOT_KEPT, {0});
}

TEST_F(EngineInFlight, FewDecodesOfALayerWaitForMore) {
  for (const char* id : {"a", "b", "c"}) Begin(id);
  const size_t before = begun();
  SendDecode("a");
  EXPECT_TRUE(Step());
  SendDecode("b");
  EXPECT_TRUE(Step());
  EXPECT_EQ(begun(), before + 1);
  SendDecode("c");
  EXPECT_TRUE(Step());
  EXPECT_EQ(backend_.runs().back().parts, 2u);
  RunAll();
}

}  // namespace
}  // namespace gdn::test
