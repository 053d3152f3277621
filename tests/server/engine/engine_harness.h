// An engine over a fake backend, driven by the test's own clock.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/engine/engine.h"
#include "tests/testing/fake_backend.h"
#include "tests/testing/steps.h"

namespace gdn::test {

// What it is told, in words.
struct ToldObserver final : EngineObserver {
  void StepBegins(const Step&) override { told.emplace_back("step begins"); }
  void StepEnds(const Step&, const StepAnswer& answer) override {
    told.push_back("step ends, " + std::to_string(answer.replayed_rows) + " replayed");
  }
  void BatchBegins(StepKind kind, const Batch& batch) override {
    told.push_back("batch of " + std::to_string(batch.rows()) +
                   " rows begins: " + (kind == StepKind::kDecode ? "decode" : "prefill"));
  }
  void BatchEnded() override { told.emplace_back("batch ended"); }
  void LeaseExpired() override { told.emplace_back("lease expired"); }

  std::vector<std::string> told;
};

// Layers 3 and 7 of the model, with the limits of FakeShape().
class EngineHarness : public ::testing::Test {
 protected:
  static constexpr uint64_t kFirstEpoch = 100;
  static constexpr absl::Duration kTtl = absl::Seconds(60);

  explicit EngineHarness(int depth = 1, uint32_t prefill_chunk = 0) : backend_(FakeShape(), depth) {
    EngineOptions options;
    options.layers = {3, 7};
    options.shape = FakeShape();
    options.max_queue_steps = 6;
    options.max_queue_rows = 1 << 20;
    options.max_queue_bytes = 4000;
    options.prefill_chunk = prefill_chunk;
    options.replay_bytes = 16 * 8;  // 8 tokens
    options.step_ttl = kTtl;
    options.prefill_max_wait = absl::Seconds(1);
    options.first_epoch = kFirstEpoch;
    options.on_device_lost = [this] { ++devices_lost_; };
    options.observer = &observer_;
    engine_ = std::make_unique<Engine>(std::move(options), &backend_);
  }

  static StepRequest ById(std::vector<std::string> ids, bool create = false) {
    StepRequest request;
    request.layer = 3;
    request.create = create;
    request.request_ids = std::move(ids);
    return request;
  }
  static StepRequest BySlot(std::vector<int32_t> slots, std::vector<uint64_t> epochs) {
    StepRequest request;
    request.layer = 3;
    request.slots = std::move(slots);
    request.epochs = std::move(epochs);
    return request;
  }

  std::shared_ptr<Outcome> Send(StepKind kind, StepRequest request, std::string input) {
    auto [step, outcome] = NewStep(kind, std::move(request), std::move(input));
    last_step_ = step;
    engine_->Submit(std::move(step), now_);
    return outcome;
  }
  // Hands in a call; a refusal goes to refusals_.
  std::shared_ptr<Call> SendCall(CallPlace place, std::function<void(absl::Time)> run) {
    auto call = std::make_shared<Call>();
    call->place = std::move(place);
    call->run = std::move(run);
    call->refuse = [this](const Fault& fault) { refusals_.push_back(fault.reason); };
    engine_->Submit(call, now_);
    return call;
  }
  // Runs batches until nothing waits.
  void RunAll() {
    for (int i = 0; engine_->Step(now_); ++i) ASSERT_LT(i, 1000);
  }
  std::shared_ptr<Outcome> Decode(StepRequest request, std::string input) {
    auto outcome = Send(StepKind::kDecode, std::move(request), std::move(input));
    RunAll();
    return outcome;
  }
  std::shared_ptr<Outcome> Prefill(StepRequest request, std::string input) {
    auto outcome = Send(StepKind::kPrefill, std::move(request), std::move(input));
    RunAll();
    return outcome;
  }

  // Begins a sequence with one token at layer 3; gives its slot.
  int32_t Begin(const std::string& id) {
    const auto outcome = Decode(ById({id}, true), Hidden({1}));
    EXPECT_TRUE(outcome->ok()) << outcome->fault.message;
    return outcome->answer.slots.empty() ? -1 : outcome->answer.slots[0];
  }
  uint64_t EpochOf(const std::string& id) { return engine_->table().At(SlotOf(id)).epoch; }
  int32_t SlotOf(const std::string& id) { return engine_->table().Find(id).value(); }
  uint64_t PositionOf(const std::string& id, int layer = 0) {
    return engine_->table().At(SlotOf(id)).layers[layer].position;
  }
  bool Lives(const std::string& id) { return engine_->table().Find(id).has_value(); }

  FakeBackend backend_;
  ToldObserver observer_;
  int devices_lost_ = 0;
  std::unique_ptr<Engine> engine_;
  std::shared_ptr<Step> last_step_;
  std::vector<v1::ErrorReason> refusals_;  // of calls
  absl::Time now_ = absl::UnixEpoch() + absl::Hours(1);
};

// That a step was refused once, for the rows named.
inline void ExpectFault(const Outcome& outcome, v1::ErrorReason reason,
                        const std::vector<uint32_t>& rows) {
  EXPECT_EQ(outcome.times, 1);
  EXPECT_EQ(v1::ErrorReason_Name(outcome.fault.reason), v1::ErrorReason_Name(reason));
  EXPECT_NE(outcome.fault.message, "");
  const auto found = outcome.fault.rows.find(reason);
  EXPECT_EQ(found == outcome.fault.rows.end() ? std::vector<uint32_t>() : found->second.rows, rows);
}

}  // namespace gdn::test
