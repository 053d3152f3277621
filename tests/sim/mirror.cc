#include "tests/sim/mirror.h"

#include <algorithm>
#include <set>
#include <tuple>

#include "gtest/gtest.h"
#include "tests/testing/steps.h"

namespace gdn::test {
namespace {

constexpr uint64_t kRemembered = 4096;

}  // namespace

std::string StepSpec::Input() const {
  std::string bytes;
  for (const std::vector<float>& row : tokens) {
    for (const float token : row) bytes += Hidden({token});
  }
  return bytes;
}

bool Mirror::Item::Names(const std::string& id) const {
  return std::find(names.begin(), names.end(), id) != names.end();
}

bool Mirror::Item::Shares(const Item& other) const {
  return std::any_of(names.begin(), names.end(), [&other](const std::string& name) {
    return !name.empty() && other.Names(name);
  });
}

bool Mirror::StepArrives(uint64_t serial, const StepSpec& spec, absl::Time now) {
  if (waiting_steps() >= rules_.max_queue_steps) return false;
  Item item;
  item.step = spec;
  item.arrival = now;
  const StepRequest& request = spec.request;
  for (size_t row = 0; row < request.rows(); ++row) {
    std::string name;
    if (request.by_id()) {
      name = request.request_ids[row];
    } else {
      for (const auto& [id, sequence] : live_) {
        if (sequence.slot == request.slots[row] && sequence.epoch == request.epochs[row]) name = id;
      }
      // An epoch that nobody had yet is nobody's later either.
      uint64_t& epoch = item.step.request.epochs[row];
      if (name.empty() && !IsExpired(epoch)) epoch = 0;
    }
    item.names.push_back(name);
  }
  waiting_.emplace(serial, std::move(item));
  return true;
}

bool Mirror::CallArrives(uint64_t serial, const CallSpec& spec, absl::Time now) {
  if (waiting_.size() - waiting_steps() >= rules_.max_queue_steps) return false;
  Item item;
  item.is_call = true;
  item.call = spec;
  item.arrival = now;
  item.names = spec.ids;
  waiting_.emplace(serial, std::move(item));
  return true;
}

void Mirror::Cancel(uint64_t serial) { waiting_.at(serial).cancelled = true; }

std::vector<uint64_t> Mirror::Waiting() const {
  std::vector<uint64_t> serials;
  for (const auto& [serial, item] : waiting_) serials.push_back(serial);
  return serials;
}

size_t Mirror::waiting_steps() const {
  return static_cast<size_t>(std::count_if(
      waiting_.begin(), waiting_.end(), [](const auto& entry) { return !entry.second.is_call; }));
}

int Mirror::slots_used() const {
  size_t used = live_.size();
  for (const auto& [serial, item] : waiting_) {
    used += std::count(item.actions.begin(), item.actions.end(), Action::kFresh);
  }
  return static_cast<int>(used);
}

void Mirror::CheckRound(absl::Time now, const Round& round, const std::vector<Reply>& replies) {
  EndLeases(now);
  const Replies rest = CheckDropped(now, replies);
  if (!round.ran) {
    EXPECT_TRUE(rest.empty());
    EXPECT_TRUE(waiting_.empty()) << "work waits and nothing ran";
    return;
  }
  // What this round began is answered or in flight now, and was neither before. Where that is
  // nothing, a batch that it began is another piece.
  std::set<uint64_t> begun(round.in_flight.begin(), round.in_flight.end());
  for (const auto& [serial, reply] : rest) begun.insert(serial);
  if (round.between != 0) begun.insert(round.between);
  std::erase_if(begun, [this](uint64_t serial) { return waiting_.at(serial).HasBegun(); });
  const bool goes_on = begun.empty() && round.batch_tokens >= 0;
  if (goes_on) {
    ASSERT_NE(between_, 0u) << "a batch of nothing";
    begun.insert(between_);
  }
  CheckOrder(now, {begun.begin(), begun.end()});
  if (!begun.empty() && waiting_.at(*begun.begin()).is_call) {
    EXPECT_TRUE(in_flight_.empty()) << "a call ran beside steps";
    EXPECT_EQ(rest.size(), 1u);
    CheckCall(now, waiting_.at(*begun.begin()), *rest.begin()->second);
    waiting_.erase(*begun.begin());
    return;
  }
  if (goes_on) {
    GoOn();
  } else if (!begun.empty()) {
    CheckBegun({begun.begin(), begun.end()}, rest);
  }
  if (round.batch_tokens >= 0) CheckBatch(round.batch_tokens);
  const bool ended = CheckEnded(now, rest, round);
  EXPECT_TRUE(!begun.empty() || ended) << "work waits and nothing ran";
  EXPECT_EQ(round.in_flight, InFlight());
  EXPECT_EQ(round.between, between_);
  EXPECT_LT(in_flight_.size(), rules_.depth) << "no batch may begin, and none was waited for";
}

// A lease runs from the end of the step that gave it, and ends once its end has passed, but under
// no step or call that came before that, and no step in flight.
void Mirror::EndLeases(absl::Time now) {
  std::vector<std::string> due;
  for (auto& entry : live_) {
    const std::string& id = entry.first;
    Sequence& sequence = entry.second;
    if (sequence.touched) sequence.expires = std::max(sequence.expires, now + rules_.ttl);
    sequence.touched = false;
    if (sequence.expires >= now) continue;
    const bool held = std::any_of(waiting_.begin(), waiting_.end(), [&](const auto& waiting) {
      const Item& item = waiting.second;
      return (item.HasBegun() || item.arrival <= sequence.expires) && item.Names(id);
    });
    if (!held) due.push_back(id);
  }
  for (const std::string& id : due) End(id, /*expired=*/true);
}

// Steps and calls whose caller is gone are refused before anything runs, and no others are.
Mirror::Replies Mirror::CheckDropped(absl::Time now, const std::vector<Reply>& replies) {
  std::set<uint64_t> unwanted;
  for (const auto& [serial, item] : waiting_) {
    const bool dropped = item.cancelled || item.deadline() < now;
    if (!item.HasBegun() && dropped) unwanted.insert(serial);
  }
  Replies rest;
  std::set<uint64_t> seen;
  for (const Reply& reply : replies) {
    EXPECT_TRUE(waiting_.contains(reply.serial)) << "an answer to nothing that waits";
    EXPECT_TRUE(seen.insert(reply.serial).second) << "answered twice";
    if (!unwanted.contains(reply.serial)) {
      rest[reply.serial] = &reply;
      continue;
    }
    EXPECT_EQ(reply.fault.reason, v1::ERROR_REASON_QUEUE_FULL);
    unwanted.erase(reply.serial);
    waiting_.erase(reply.serial);
  }
  EXPECT_TRUE(unwanted.empty()) << "what nobody waits for still waits";
  return rest;
}

bool Mirror::WaitsFor(const Item& later, const Item& earlier) {
  if (later.is_call && later.call.kind == CallSpec::Kind::kList) return true;
  if (!later.Shares(earlier)) return false;
  if (earlier.is_call) return earlier.call.kind == CallSpec::Kind::kRelease;
  return later.is_call || later.step.layer == earlier.step.layer;
}

bool Mirror::IsCut(const Item& item) const {
  return item.IsPrefill() && item.tokens() > rules_.prefill_chunk;
}

// Of a sequence one step at a time has begun and not ended, whatever its layer; and of all
// prefills one runs in pieces.
bool Mirror::WaitsForBegun(const Item& item, const Item& begun) const {
  const bool list = item.is_call && item.call.kind == CallSpec::Kind::kList;
  return list || (item.is_call && begun.in_flight > 0) || item.Shares(begun);
}

bool Mirror::Waits(uint64_t serial) const {
  return !waiting_.at(serial).HasBegun() || serial == between_;
}

bool Mirror::IsFree(uint64_t serial) const {
  const Item& item = waiting_.at(serial);
  if (item.HasBegun()) return serial == between_;
  if (IsCut(item) && between_ != 0) return false;
  return std::none_of(waiting_.begin(), waiting_.end(), [&](const auto& entry) {
    const auto& [other, earlier] = entry;
    if (earlier.HasBegun()) return WaitsForBegun(item, earlier);
    return other < serial && WaitsFor(item, earlier);
  });
}

void Mirror::CheckOrder(absl::Time now, const std::vector<uint64_t>& begun) const {
  int64_t rows = 0;
  for (const uint64_t serial : begun) {
    EXPECT_TRUE(IsFree(serial)) << "out of order";
    const Item& item = waiting_.at(serial);
    if (item.is_call || begun.size() == 1) continue;
    rows += static_cast<int64_t>(item.step.request.rows());
    EXPECT_FALSE(item.IsPrefill()) << "a prefill was merged";
    EXPECT_EQ(item.step.layer, waiting_.at(begun.front()).step.layer);
  }
  EXPECT_LE(rows, rules_.max_rows);

  const auto oldest = [this](StepKind kind) {
    return std::find_if(waiting_.begin(), waiting_.end(), [this, kind](const auto& entry) {
      const auto& [serial, item] = entry;
      return !item.is_call && Waits(serial) && item.step.kind == kind;
    });
  };
  const auto includes = [&begun](uint64_t serial) {
    return std::find(begun.begin(), begun.end(), serial) != begun.end();
  };
  const auto prefill = oldest(StepKind::kPrefill);
  const auto decode = oldest(StepKind::kDecode);
  const bool alone = decode == waiting_.end() &&
                     std::none_of(waiting_.begin(), waiting_.end(),
                                  [](const auto& entry) { return entry.second.is_call; });
  const bool aged = prefill != waiting_.end() && !last_was_prefill_ &&
                    now - prefill->second.arrival >= rules_.prefill_max_wait;
  const bool beside_decodes = std::any_of(waiting_.begin(), waiting_.end(), [](const auto& entry) {
    return entry.second.in_flight > 0 && !entry.second.IsPrefill();
  });
  if (aged && IsFree(prefill->first)) {
    EXPECT_TRUE(beside_decodes ? begun.empty() : includes(prefill->first))
        << "a prefill that waited long did not go first";
  }
  if (prefill != waiting_.end() && alone && !beside_decodes && IsFree(prefill->first)) {
    EXPECT_TRUE(includes(prefill->first)) << "a prefill waits for nothing";
  }
  if (beside_decodes && !begun.empty()) {
    EXPECT_FALSE(waiting_.at(begun.front()).IsPrefill()) << "a prefill began beside decodes";
  }
  const bool free_decode = std::any_of(waiting_.begin(), waiting_.end(), [this](const auto& entry) {
    const auto& [serial, item] = entry;
    return !item.is_call && !item.IsPrefill() && IsFree(serial);
  });
  if (last_was_prefill_ && free_decode && !begun.empty()) {
    EXPECT_FALSE(waiting_.at(begun.front()).IsPrefill()) << "prefills in a row passed a decode";
  }
  if (!aged && decode != waiting_.end() && !begun.empty() && IsFree(decode->first)) {
    EXPECT_FALSE(waiting_.at(begun.front()).IsPrefill()) << "a prefill passed a decode";
  }
}

bool Mirror::IsExpired(const std::string& id) const {
  const auto it = expired_ids_.find(id);
  return it != expired_ids_.end() && expiries_ - it->second < kRemembered;
}

bool Mirror::IsExpired(uint64_t epoch) const {
  const auto it = expired_epochs_.find(epoch);
  return it != expired_epochs_.end() && expiries_ - it->second < kRemembered;
}

void Mirror::Begin(absl::Time now, const std::string& id, size_t row, const Reply& reply) {
  Sequence sequence;
  if (reply.fault.ok() && row < reply.answer.slots.size()) {
    sequence.slot = reply.answer.slots[row];
    sequence.epoch = reply.answer.epochs[row];
  } else {
    std::tie(sequence.slot, sequence.epoch) = locate_(id);
  }
  EXPECT_TRUE(sequence.slot >= 0 && sequence.slot < rules_.slots) << sequence.slot;
  for (const auto& [other, live] : live_) {
    EXPECT_NE(live.slot, sequence.slot) << id << " shares the slot of " << other;
  }
  EXPECT_TRUE(epochs_.insert(sequence.epoch).second) << "an epoch came again";
  sequence.expires = now + rules_.ttl;
  sequence.layers.resize(static_cast<size_t>(rules_.layers));
  live_[id] = std::move(sequence);
}

void Mirror::End(const std::string& id, bool expired) {
  const uint64_t epoch = live_.at(id).epoch;
  for (int layer = 0; layer < rules_.layers; ++layer) Forget(epoch, layer);
  live_.erase(id);
  expired_ids_.erase(id);
  if (!expired) return;
  ++expiries_;
  expired_ids_[id] = expiries_;
  expired_epochs_[epoch] = expiries_;
}

void Mirror::Keep(uint64_t epoch, int layer, size_t bytes) {
  if (bytes > rules_.replay_bytes) return;
  kept_.push_back({epoch, layer, bytes});
  size_t total = 0;
  for (const Kept& kept : kept_) total += kept.bytes;
  for (; total > rules_.replay_bytes; kept_.pop_front()) total -= kept_.front().bytes;
}

void Mirror::Forget(uint64_t epoch, int layer) {
  kept_.remove_if([=](const Kept& kept) { return kept.epoch == epoch && kept.layer == layer; });
}

bool Mirror::IsKept(uint64_t epoch, int layer) const {
  return std::any_of(kept_.begin(), kept_.end(),
                     [=](const Kept& kept) { return kept.epoch == epoch && kept.layer == layer; });
}

}  // namespace gdn::test
