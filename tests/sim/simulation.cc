#include "tests/sim/simulation.h"

#include <algorithm>
#include <utility>

#include "gtest/gtest.h"
#include "server/service/sequences.h"
#include "server/wire/validate_step.h"
#include "tests/testing/steps.h"

namespace gdn::test {
namespace {

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

EngineOptions Options(uint64_t first_epoch) {
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
  options.first_epoch = first_epoch;
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

}  // namespace

Simulation::Simulation(Choices* choices, int depth, uint64_t first_epoch)
    : choices_(choices),
      traffic_(choices),
      backend_(Shape(), depth),
      engine_(Options(first_epoch), &backend_),
      mirror_(Rules(depth), [this](const std::string& id) {
        const int32_t slot = engine_.table().Find(id).value_or(-1);
        return std::pair(slot, slot < 0 ? 0 : engine_.table().At(slot).epoch);
      }) {}

void Simulation::Event() {
  now_ += absl::Milliseconds(choices_->Below(200));
  if (choices_->Below(250) == 0) now_ += absl::Seconds(choices_->Below(15));
  const uint64_t what = choices_->Below(250);
  if (what < 90) {
    SendStep();
  } else if (what < 105) {
    SendCall();
  } else if (what < 106) {
    SendManyCalls();
  } else if (what < 112) {
    Cancel();
  } else {
    Turn();
  }
}

void Simulation::Finish() {
  const size_t most = 20 * mirror_.Waiting().size() + 1;  // each begins and ends, in so many pieces
  for (size_t i = 0; !mirror_.Waiting().empty() && i < most; ++i) Turn();
  EXPECT_TRUE(mirror_.Waiting().empty());
  EXPECT_TRUE(steps_.empty() && calls_.empty());
  EXPECT_EQ(engine_.waiting(), 0u);
}

void Simulation::Drain() {
  engine_.Drain();
  mirror_.Drain();
}

int64_t Simulation::overlaps(size_t most) const {
  const std::vector<FakeBackend::RunRecord> runs = backend_.runs();
  return std::count_if(runs.begin(), runs.end(),
                       [most](const auto& run) { return run.beside == most; });
}

void Simulation::SendStep() {
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
  engine_.Submit(step, now_);
  CheckArrival(serial, fits);
}

void Simulation::SendCall() {
  const uint64_t serial = next_serial_++;
  const CallSpec spec = traffic_.Call(mirror_, now_);
  auto call = std::make_shared<Call>();
  call->place = {spec.ids, spec.kind == CallSpec::Kind::kList,
                 spec.kind == CallSpec::Kind::kRelease};
  call->deadline = spec.deadline;
  call->run = [this, serial, spec](absl::Time now) {
    Reply reply = RunCall(spec, now);
    reply.serial = serial;
    Answered(std::move(reply));
  };
  call->refuse = [this, serial](const Fault& fault) {
    Reply reply;
    reply.serial = serial;
    reply.fault = fault;
    ++counts_["calls refused"];
    Answered(std::move(reply));
  };
  calls_[serial] = call;
  const bool fits = mirror_.CallArrives(serial, spec, now_);
  engine_.Submit(call, now_);
  CheckArrival(serial, fits);
}

void Simulation::SendManyCalls() {
  for (size_t i = 0; i <= Rules().max_queue_steps; ++i) SendCall();
}

void Simulation::CheckArrival(uint64_t serial, bool fits) {
  if (fits) {
    EXPECT_TRUE(replies_.empty()) << "answered before its turn";
    return;
  }
  ASSERT_EQ(replies_.size(), 1u) << "a full queue refuses at once";
  EXPECT_EQ(replies_[0].serial, serial);
  EXPECT_EQ(replies_[0].fault.reason, v1::ERROR_REASON_QUEUE_FULL);
  replies_.clear();
}

Reply Simulation::RunCall(const CallSpec& spec, absl::Time now) {
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

void Simulation::Cancel() {
  const std::vector<uint64_t> waiting = mirror_.Waiting();
  if (waiting.empty()) return;
  const uint64_t serial = waiting[choices_->Below(waiting.size())];
  if (const auto step = steps_.find(serial); step != steps_.end()) {
    step->second->cancelled = true;
  } else {
    calls_.at(serial)->cancelled = true;
  }
  mirror_.Cancel(serial);
}

void Simulation::Turn() {
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
  EXPECT_EQ(engine_.waiting(), mirror_.waiting_steps());
}

void Simulation::Answered(Reply reply) {
  const std::string name = v1::ErrorReason_Name(reply.fault.reason);
  ++counts_[reply.answer.replayed_rows > 0 ? "replayed" : name];
  steps_.erase(reply.serial);
  calls_.erase(reply.serial);
  replies_.push_back(std::move(reply));
}

uint64_t Simulation::SerialOf(const Step* step) const {
  const auto it = std::find_if(steps_.begin(), steps_.end(),
                               [step](const auto& entry) { return entry.second.get() == step; });
  return it == steps_.end() ? 0 : it->first;
}

}  // namespace gdn::test
