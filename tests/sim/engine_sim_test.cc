// A seeded simulation of the engine: random steps, calls and passing time, every answer judged by
// the mirror. --events=N and --seed=N after GoogleTest's own flags change what is run.
#include <algorithm>
#include <iostream>
#include <map>
#include <memory>

#include "absl/strings/numbers.h"
#include "absl/strings/strip.h"
#include "gtest/gtest.h"
#include "server/engine/engine.h"
#include "server/service/sequences.h"
#include "server/wire/validate_step.h"
#include "tests/sim/mirror.h"
#include "tests/sim/traffic.h"
#include "tests/testing/steps.h"

namespace gdn::test {
namespace {

uint64_t g_events = 100000;
uint64_t g_seed = 1;

const std::vector<int> kLayers = {3, 7, 8};

MirrorRules Rules(int depth = 1) {
  return {.layers = 3,
          .slots = 5,
          .max_rows = 8,
          .max_decode_tokens = 2,
          .max_queue_steps = 16,
          .depth = static_cast<size_t>(depth),
          .prefill_chunk = 6,
          .replay_bytes = 20 * 16,  // 20 tokens
          .ttl = absl::Seconds(10),
          .prefill_max_wait = absl::Seconds(1)};
}

BackendShape Shape() {
  BackendShape shape = FakeShape();
  shape.layers = Rules().layers;
  shape.slots = Rules().slots;
  shape.max_rows = Rules().max_rows;
  return shape;
}

EngineOptions Options(uint64_t seed) {
  EngineOptions options;
  options.layers = kLayers;
  options.shape = Shape();
  options.max_queue_steps = Rules().max_queue_steps;
  options.max_queue_rows = 1 << 20;
  options.max_queue_bytes = 1 << 30;
  options.prefill_chunk = Rules().prefill_chunk;
  options.replay_bytes = Rules().replay_bytes;
  options.step_ttl = Rules().ttl;
  options.prefill_max_wait = Rules().prefill_max_wait;
  options.first_epoch = seed * 1000003 + 1;
  return options;
}

StepLimits Limits() {
  const BackendShape shape = Shape();
  return {.geometry = shape.geometry,
          .io = shape.io,
          .layers = {kLayers.begin(), kLayers.end()},
          .projections = true,
          .slots = static_cast<uint32_t>(shape.slots),
          .max_rows = static_cast<uint32_t>(shape.max_rows),
          .max_tokens = static_cast<uint64_t>(shape.max_tokens),
          .max_decode_tokens = static_cast<uint32_t>(shape.max_decode_tokens)};
}

class Simulation {
 public:
  Simulation(uint64_t seed, int depth)
      : traffic_(seed),
        backend_(Shape(), depth),
        engine_(Options(seed), &backend_),
        mirror_(Rules(depth), [this](const std::string& id) {
          const int32_t slot = engine_.table().Find(id).value_or(-1);
          return std::pair(slot, slot < 0 ? 0 : engine_.table().At(slot).epoch);
        }) {}

  // One event; everything that waits, at the end.
  void Event() {
    now_ += absl::Milliseconds(traffic_.Below(200));
    if (traffic_.Below(300) == 0) now_ += absl::Seconds(traffic_.Below(15));
    const uint64_t what = traffic_.Below(100);
    if (what < 36) {
      SendStep();
    } else if (what < 42) {
      SendCall();
    } else if (what < 44) {
      Cancel();
    } else {
      Turn();
    }
  }
  void Finish() {
    const size_t most = 20 * mirror_.waiting() + 1;  // each begins and ends, in so many pieces
    for (size_t i = 0; mirror_.waiting() > 0 && i < most; ++i) Turn();
    EXPECT_EQ(mirror_.waiting(), 0u);
    EXPECT_TRUE(steps_.empty());
    EXPECT_EQ(engine_.waiting(), 0u);
  }
  void Drain() {
    engine_.Drain();
    mirror_.Drain();
  }
  const std::map<std::string, int>& counts() const { return counts_; }
  // Batches that began beside as many as there may be.
  int64_t overlaps(size_t most) const {
    const std::vector<FakeBackend::RunRecord> runs = backend_.runs();
    return std::count_if(runs.begin(), runs.end(),
                         [most](const auto& run) { return run.beside == most; });
  }

 private:
  void SendStep() {
    const uint64_t serial = next_serial_++;
    const StepSpec spec = traffic_.Step(mirror_, kLayers, now_);
    auto [step, outcome] = NewStep(spec.kind, spec.request, spec.Input());
    ASSERT_TRUE(ValidateStep(step->request, spec.kind, Limits()).ok());
    step->deadline = spec.deadline;
    step->done = [this, serial](const Fault& fault, StepAnswer answer) {
      Reply reply;
      reply.serial = serial;
      reply.fault = fault;
      const size_t numbers = answer.output.size / sizeof(float);
      const auto* output = reinterpret_cast<const float*>(answer.output.data);
      if (fault.ok()) reply.output.assign(output, output + numbers);
      reply.answer = std::move(answer);
      Answered(std::move(reply));
    };
    steps_[serial] = step;
    const bool fits = mirror_.StepArrives(serial, spec, now_);
    engine_.Submit(std::move(step), now_);
    if (fits) {
      EXPECT_TRUE(replies_.empty()) << "answered before its turn";
      return;
    }
    ASSERT_EQ(replies_.size(), 1u) << "a full queue refuses at once";
    EXPECT_EQ(replies_[0].serial, serial);
    EXPECT_EQ(replies_[0].fault.reason, v1::ERROR_REASON_QUEUE_FULL);
    replies_.clear();
  }

  void SendCall() {
    const uint64_t serial = next_serial_++;
    const CallSpec spec = traffic_.Call(mirror_);
    mirror_.CallArrives(serial, spec, now_);
    const bool release = spec.kind == CallSpec::Kind::kRelease;
    const bool list = spec.kind == CallSpec::Kind::kList;
    EXPECT_TRUE(engine_.Submit({spec.ids, list, release,
                                [this, serial, spec](absl::Time now) {
                                  Reply reply = RunCall(spec, now);
                                  reply.serial = serial;
                                  Answered(std::move(reply));
                                }},
                               now_));
  }

  Reply RunCall(const CallSpec& spec, absl::Time now) {
    const SequenceRules rules = {"instance", Rules().ttl, absl::Hours(1)};
    Reply reply;
    if (spec.kind == CallSpec::Kind::kGet) {
      v1::GetSequenceRequest request;
      v1::GetSequenceResponse response;
      request.set_request_id(spec.ids[0]);
      reply.fault = Execute(request, rules, &engine_, now, &response);
      if (reply.fault.ok()) reply.shown.push_back(response.sequence());
    } else if (spec.kind == CallSpec::Kind::kList) {
      v1::ListSequencesResponse response;
      reply.fault = Execute(v1::ListSequencesRequest(), rules, &engine_, now, &response);
      reply.shown.assign(response.sequences().begin(), response.sequences().end());
    } else if (spec.kind == CallSpec::Kind::kRelease) {
      v1::ReleaseSequencesRequest request;
      for (const std::string& id : spec.ids) request.add_request_ids(id);
      for (const uint64_t epoch : spec.epochs) request.add_epochs(epoch);
      v1::ReleaseSequencesResponse response;
      reply.fault = Execute(request, rules, &engine_, now, &response);
    } else {
      v1::RenewSequencesRequest request;
      v1::RenewSequencesResponse response;
      for (const std::string& id : spec.ids) request.add_request_ids(id);
      request.mutable_ttl()->set_seconds(absl::ToInt64Seconds(spec.ttl));
      reply.fault = Execute(request, rules, &engine_, now, &response);
      reply.missing.assign(response.missing_request_ids().begin(),
                           response.missing_request_ids().end());
    }
    return reply;
  }

  void Cancel() {
    const std::vector<uint64_t> waiting = mirror_.WaitingSteps();
    if (waiting.empty()) return;
    const uint64_t serial = waiting[traffic_.Below(waiting.size())];
    steps_.at(serial)->cancelled = true;
    mirror_.Cancel(serial);
  }

  void Turn() {
    const size_t batches = backend_.batches();
    Round round;
    round.ran = engine_.Step(now_);
    for (const Step* step : engine_.in_flight()) round.in_flight.push_back(SerialOf(step));
    round.between = SerialOf(engine_.between_pieces());
    if (round.between != 0) ++counts_["between pieces"];
    if (backend_.batches() > batches) round.batch_tokens = backend_.last_run().tokens;
    mirror_.CheckRound(now_, round, replies_);
    replies_.clear();
    EXPECT_EQ(engine_.slots_used(), mirror_.slots_used());
    EXPECT_EQ(engine_.waiting(), mirror_.WaitingSteps().size());
  }

  // Of an unanswered step; 0 for none.
  uint64_t SerialOf(const Step* step) const {
    const auto it = std::find_if(steps_.begin(), steps_.end(),
                                 [step](const auto& entry) { return entry.second.get() == step; });
    return it == steps_.end() ? 0 : it->first;
  }

  void Answered(Reply reply) {
    const std::string name = v1::ErrorReason_Name(reply.fault.reason);
    ++counts_[reply.answer.replayed_rows > 0 ? "replayed" : name];
    steps_.erase(reply.serial);
    replies_.push_back(std::move(reply));
  }

  Traffic traffic_;
  FakeBackend backend_;
  Engine engine_;
  Mirror mirror_;
  absl::Time now_ = absl::UnixEpoch() + absl::Hours(1);
  uint64_t next_serial_ = 1;
  std::map<uint64_t, std::shared_ptr<Step>> steps_;  // unanswered
  std::vector<Reply> replies_;                       // since the last round
  std::map<std::string, int> counts_;                // of answers by what they said
};

// By the number of batches that may be in flight.
class EngineSimulation : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Depths, EngineSimulation, ::testing::Values(1, 2));

TEST_P(EngineSimulation, EveryAnswerIsTheContracts) {
  SCOPED_TRACE(::testing::Message() << "--seed=" << g_seed << " --events=" << g_events);
  Simulation simulation(g_seed, GetParam());
  for (uint64_t event = 0; event < g_events; ++event) {
    SCOPED_TRACE(::testing::Message() << "event " << event);
    if (event == g_events - g_events / 20) simulation.Drain();
    simulation.Event();
    if (::testing::Test::HasFailure()) return;
  }
  simulation.Finish();
  // It is no test of what never happened.
  const int64_t overlaps = simulation.overlaps(static_cast<size_t>(GetParam()) - 1);
  std::cout << "overlaps " << overlaps << "\n";
  if (g_events >= 100000) {
    EXPECT_GT(overlaps, 100);
  }
  for (const char* what :
       {"between pieces", "ERROR_REASON_UNSPECIFIED", "replayed", "ERROR_REASON_NON_FINITE_INPUT",
        "ERROR_REASON_STEP_ID_REUSED", "ERROR_REASON_SEQUENCE_NOT_FOUND",
        "ERROR_REASON_SEQUENCE_EXPIRED", "ERROR_REASON_POSITION_MISMATCH",
        "ERROR_REASON_ANSWER_NOT_KEPT", "ERROR_REASON_SLOTS_EXHAUSTED", "ERROR_REASON_QUEUE_FULL",
        "ERROR_REASON_DRAINING", "ERROR_REASON_STATE_POISONED", "ERROR_REASON_DEVICE_ERROR"}) {
    const auto it = simulation.counts().find(what);
    const int count = it == simulation.counts().end() ? 0 : it->second;
    std::cout << what << " " << count << "\n";
    if (g_events >= 100000) {
      EXPECT_GT(count, 20) << what;
    }
  }
}

}  // namespace

bool ReadArgument(absl::string_view argument) {
  if (absl::ConsumePrefix(&argument, "--events=")) return absl::SimpleAtoi(argument, &g_events);
  if (absl::ConsumePrefix(&argument, "--seed=")) return absl::SimpleAtoi(argument, &g_seed);
  return false;
}

}  // namespace gdn::test

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  for (int i = 1; i < argc; ++i) {
    if (gdn::test::ReadArgument(argv[i])) continue;
    std::cerr << "usage: " << argv[0] << " [--events=N] [--seed=N]\n";
    return 2;
  }
  return RUN_ALL_TESTS();
}
