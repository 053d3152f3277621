// What the mirror says of steps that ran: first whether all their rows pass, then what they fold.
#include <algorithm>
#include <cmath>
#include <set>

#include "gtest/gtest.h"
#include "tests/sim/mirror.h"
#include "tests/testing/steps.h"

namespace gdn::test {
namespace {

constexpr size_t kRowNumbers = 4;

std::string Text(v1::ErrorReason reason) { return v1::ErrorReason_Name(reason); }

void ExpectSameFault(const Fault& expected, const Fault& found) {
  EXPECT_EQ(Text(expected.reason), Text(found.reason));
  EXPECT_EQ(expected.rows.size(), found.rows.size());
  for (const auto& [reason, faults] : expected.rows) {
    const auto it = found.rows.find(reason);
    if (it == found.rows.end()) {
      ADD_FAILURE() << "no rows for " << Text(reason);
      continue;
    }
    EXPECT_EQ(faults.rows, it->second.rows) << Text(reason);
    EXPECT_EQ(faults.positions, it->second.positions) << Text(reason);
  }
}

}  // namespace

// Steps whose turn came: they are refused at once, or in flight.
void Mirror::CheckBegun(const std::vector<uint64_t>& begun, const Replies& replies) {
  last_was_prefill_ = waiting_.at(begun.front()).IsPrefill();
  std::vector<uint64_t> batch;
  std::set<std::string> names;
  for (const uint64_t serial : begun) {
    Item& item = waiting_.at(serial);
    std::vector<Action> actions;
    const Fault fault = Plan(item, rules_.slots - slots_used(), &actions);
    if (!fault.ok()) {
      const auto reply = replies.find(serial);
      ASSERT_TRUE(reply != replies.end()) << "not refused";
      ExpectSameFault(fault, reply->second->fault);
      waiting_.erase(serial);
      continue;
    }
    item.actions = std::move(actions);
    item.in_flight = 1;
    batch.push_back(serial);
    for (const std::string& name : item.names) {
      EXPECT_TRUE(name.empty() || names.insert(name).second)
          << "merged although they share " << name;
    }
  }
  if (!batch.empty()) in_flight_.push_back(std::move(batch));
}

// Another piece of the prefill of which some wait.
void Mirror::GoOn() {
  last_was_prefill_ = true;
  ++waiting_.at(between_).in_flight;
  in_flight_.push_back({between_});
}

// The batch that began last has these tokens.
void Mirror::CheckBatch(int64_t tokens) {
  ASSERT_FALSE(in_flight_.empty()) << "a batch of nothing";
  int64_t whole = 0;
  for (const uint64_t serial : in_flight_.back()) {
    Item& item = waiting_.at(serial);
    whole += item.tokens();
    item.pieces.push_back(IsCut(item) ? tokens : item.tokens());
    EXPECT_LE(item.tokens_begun(), item.tokens());
  }
  const uint64_t first = in_flight_.back().front();
  if (const Item& item = waiting_.at(first); IsCut(item)) {
    EXPECT_GT(tokens, 0);
    EXPECT_LE(tokens, rules_.prefill_chunk);
    between_ = item.tokens_begun() < item.tokens() ? first : 0;
  } else {
    EXPECT_EQ(tokens, whole);
  }
}

// The steps that are answered and were not refused are those of the batch that began first. It may
// also have been a piece, of which there is more: in flight, or waiting, where the faults of those
// that have ended leave a row to go on with. False where no batch has ended.
bool Mirror::CheckEnded(absl::Time now, const Replies& replies, const Round& round) {
  if (round.between == 0) between_ = 0;  // an answer that lacks a piece is found to be a fault
  std::vector<uint64_t> ended;
  for (const auto& [serial, reply] : replies) {
    if (waiting_.contains(serial)) ended.push_back(serial);
  }
  if (ended.empty() && round.in_flight == InFlight()) return false;
  EXPECT_FALSE(in_flight_.empty()) << "nothing was in flight";
  if (in_flight_.empty()) return true;
  const std::vector<uint64_t> oldest = std::move(in_flight_.front());
  in_flight_.pop_front();
  for (const uint64_t serial : oldest) --waiting_.at(serial).in_flight;
  const uint64_t first = oldest.front();
  if (waiting_.at(first).in_flight > 0 || first == between_) {
    EXPECT_TRUE(ended.empty()) << "answered before its last piece";
    return true;
  }
  EXPECT_EQ(ended, oldest) << "not the oldest batch";
  if (ended != oldest) return true;
  for (const uint64_t serial : ended) RunStep(now, waiting_.at(serial), *replies.at(serial));
  for (const std::string& id : ending_) End(id, /*expired=*/false);
  ending_.clear();
  for (const uint64_t serial : ended) waiting_.erase(serial);
  return true;
}

std::vector<uint64_t> Mirror::InFlight() const {
  std::vector<uint64_t> serials;
  for (const auto& batch : in_flight_) serials.insert(serials.end(), batch.begin(), batch.end());
  return serials;
}

// All rows pass, or the fault names every one that does not.
Fault Mirror::Plan(const Item& item, int free, std::vector<Action>* actions) const {
  Fault fault;
  for (size_t row = 0; row < item.names.size(); ++row) {
    Action action = Action::kPad;
    uint64_t position = 0;
    v1::ErrorReason why = PlanRow(item, row, &action, &position);
    if (action == Action::kFresh) {
      if (draining_)
        why = v1::ERROR_REASON_DRAINING;
      else if (--free < 0)
        why = v1::ERROR_REASON_SLOTS_EXHAUSTED;
    }
    if (why != v1::ERROR_REASON_UNSPECIFIED) {
      fault.AddRow(why, static_cast<uint32_t>(row), position);
    }
    actions->push_back(action);
  }
  return fault;
}

// The sequence that a row means, if it lives.
const Mirror::Sequence* Mirror::Resolve(const Item& item, size_t row) const {
  const StepRequest& request = item.step.request;
  const auto it = live_.find(item.names[row]);
  if (it == live_.end()) return nullptr;
  const uint64_t epoch = request.epochs.empty() ? 0 : request.epochs[row];
  const bool fits = (request.by_id() && epoch == 0) || epoch == it->second.epoch;
  return fits ? &it->second : nullptr;
}

v1::ErrorReason Mirror::PlanRow(const Item& item, size_t row, Action* action,
                                uint64_t* position) const {
  const StepRequest& request = item.step.request;
  if (request.padding(row)) return v1::ERROR_REASON_UNSPECIFIED;
  const uint64_t epoch = request.epochs.empty() ? 0 : request.epochs[row];
  const Sequence* sequence = Resolve(item, row);
  if (sequence == nullptr) {
    const bool lives = request.by_id() && live_.contains(item.names[row]);
    const bool elsewhere = !request.positions.empty() && request.positions[row] != 0;
    if (!lives && request.create && epoch == 0 && !elsewhere) {
      *action = Action::kFresh;
      return v1::ERROR_REASON_UNSPECIFIED;
    }
    const bool expired =
        !lives && (request.by_id() ? IsExpired(item.names[row]) : IsExpired(epoch));
    return expired ? v1::ERROR_REASON_SEQUENCE_EXPIRED : v1::ERROR_REASON_SEQUENCE_NOT_FOUND;
  }
  if (sequence->poisoned) return v1::ERROR_REASON_STATE_POISONED;
  const Cursor& at = sequence->layers[item.step.layer];
  const uint32_t tokens = request.tokens(row);
  if (tokens > 0 && request.step_id != 0 && request.step_id == at.step_id) {
    *action = Action::kReplay;
    if (tokens != at.step_tokens) return v1::ERROR_REASON_STEP_ID_REUSED;
    if (!request.positions.empty() && request.positions[row] != at.step_position) {
      return v1::ERROR_REASON_STEP_ID_REUSED;
    }
    const bool kept =
        tokens <= rules_.max_decode_tokens || IsKept(sequence->epoch, item.step.layer);
    return kept ? v1::ERROR_REASON_UNSPECIFIED : v1::ERROR_REASON_ANSWER_NOT_KEPT;
  }
  if (!request.positions.empty() && request.positions[row] != at.position) {
    *position = at.position;
    return v1::ERROR_REASON_POSITION_MISMATCH;
  }
  *action = tokens == 0 ? Action::kTouch : Action::kFold;
  return v1::ERROR_REASON_UNSPECIFIED;
}

void Mirror::RunStep(absl::Time now, const Item& item, const Reply& reply) {
  const StepRequest& request = item.step.request;
  const std::vector<Action>& actions = item.actions;
  Fault fault;
  std::vector<float> output;
  for (size_t row = 0; row < actions.size(); ++row) {
    const v1::ErrorReason why = RunRow(now, item, row, actions[row], reply, &output);
    if (why != v1::ERROR_REASON_UNSPECIFIED) fault.AddRow(why, static_cast<uint32_t>(row));
  }
  ExpectSameFault(fault, reply.fault);
  if (!fault.ok() || !reply.fault.ok()) return;
  EXPECT_EQ(item.tokens_begun(), item.tokens()) << "a piece is missing";

  EXPECT_EQ(reply.output, request.discard_output ? std::vector<float>() : output);
  EXPECT_EQ(reply.answer.replayed_rows,
            std::count(actions.begin(), actions.end(), Action::kReplay));
  ASSERT_EQ(reply.answer.slots.size(), request.by_id() ? actions.size() : 0);
  ASSERT_EQ(reply.answer.epochs.size(), reply.answer.slots.size());
  for (size_t row = 0; row < reply.answer.slots.size(); ++row) {
    const bool pad = actions[row] == Action::kPad;
    EXPECT_EQ(reply.answer.slots[row], pad ? -1 : live_.at(item.names[row]).slot);
    EXPECT_EQ(reply.answer.epochs[row], pad ? 0 : live_.at(item.names[row]).epoch);
  }
  if (!request.release_after) return;
  for (size_t row = 0; row < actions.size(); ++row) {
    if (actions[row] != Action::kPad) ending_.push_back(item.names[row]);
  }
}

// What is wrong with a row that is folded: NaN anywhere in it, or else the first piece in which
// there is something else.
v1::ErrorReason Mirror::FaultOfRow(const Item& item, size_t row) const {
  const std::vector<float>& tokens = item.step.tokens[row];
  if (std::any_of(tokens.begin(), tokens.end(), [](float x) { return !std::isfinite(x); })) {
    return v1::ERROR_REASON_NON_FINITE_INPUT;
  }
  size_t before = 0;
  for (size_t i = 0; i < row; ++i) before += item.step.tokens[i].size();
  const auto piece_with = [&](float number) {
    const auto at = std::find(tokens.begin(), tokens.end(), number);
    if (at == tokens.end()) return item.pieces.size();
    auto token = static_cast<int64_t>(before) + (at - tokens.begin());
    size_t piece = 0;
    while (piece < item.pieces.size() && token >= item.pieces[piece]) {
      token -= item.pieces[piece++];
    }
    return piece;
  };
  const size_t overflow = piece_with(kOverflowing);
  const size_t failure = piece_with(kDeviceFailing);
  if (overflow == item.pieces.size() && failure == overflow) {
    return v1::ERROR_REASON_UNSPECIFIED;
  }
  return overflow <= failure ? v1::ERROR_REASON_STATE_POISONED : v1::ERROR_REASON_DEVICE_ERROR;
}

// Appends the row's output, and folds it in unless something is wrong with it.
v1::ErrorReason Mirror::RunRow(absl::Time now, const Item& item, size_t row, Action action,
                               const Reply& reply, std::vector<float>* output) {
  const std::vector<float>& tokens = item.step.tokens[row];
  const size_t end = output->size() + tokens.size() * kRowNumbers;
  if (action == Action::kPad) {
    output->resize(end, 0);
    return v1::ERROR_REASON_UNSPECIFIED;
  }
  const std::string& id = item.names[row];
  if (action == Action::kReplay) {
    const std::vector<float>& answer = live_.at(id).layers[item.step.layer].answer;
    output->insert(output->end(), answer.begin(), answer.end());
    live_.at(id).touched = true;
    return v1::ERROR_REASON_UNSPECIFIED;
  }
  const v1::ErrorReason why = FaultOfRow(item, row);
  if (why != v1::ERROR_REASON_UNSPECIFIED) {
    if (why != v1::ERROR_REASON_NON_FINITE_INPUT && action == Action::kFold) {
      live_.at(id).poisoned = true;
    }
    output->resize(end);
    return why;
  }
  if (action == Action::kFresh) Begin(now, id, row, reply);
  Sequence& sequence = live_.at(id);
  sequence.touched = true;
  if (tokens.empty()) return why;
  Cursor& at = sequence.layers[item.step.layer];
  at.answer.clear();
  for (const float token : tokens) {
    const std::vector<float> next = Foretell(Hidden({token}), &at.state);
    at.answer.insert(at.answer.end(), next.begin(), next.end());
  }
  at.step_id = item.step.request.step_id;
  at.step_position = at.position;
  at.step_tokens = static_cast<uint32_t>(tokens.size());
  at.position += tokens.size();
  output->insert(output->end(), at.answer.begin(), at.answer.end());
  Forget(sequence.epoch, item.step.layer);
  const bool released = item.step.request.release_after && reply.fault.ok();
  if (at.step_id != 0 && tokens.size() > rules_.max_decode_tokens && !released) {
    Keep(sequence.epoch, item.step.layer, at.answer.size() * sizeof(float));
  }
  return why;
}

}  // namespace gdn::test
