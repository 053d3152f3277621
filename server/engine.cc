#include "server/engine.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace gdn {
namespace {

Fault DeviceLost() { return FaultOf(v1::ERROR_REASON_DEVICE_ERROR, "the device is lost"); }

// Says of a fault of rows which row gave its reason, and how many others there are.
std::string Describe(const Fault& fault) {
  constexpr size_t kPrefix = sizeof("ERROR_REASON_") - 1;
  const RowFaults& first = fault.rows.at(fault.reason);
  size_t others = 0;
  for (const auto& [reason, faults] : fault.rows) others += faults.rows.size();
  std::string text = absl::StrCat("row ", first.rows.front());
  if (--others > 0) absl::StrAppend(&text, " (and ", others, " more)");
  absl::StrAppend(&text, ": ", v1::ErrorReason_Name(fault.reason).substr(kPrefix));
  if (!first.positions.empty()) absl::StrAppend(&text, ", it is at ", first.positions.front());
  return text;
}

size_t RowBytes(const BackendShape& shape, int layout) {
  return OutputRowBytes(shape.geometry, static_cast<InputLayout>(layout), shape.io);
}

}  // namespace

Engine::Engine(EngineOptions options, Backend* backend)
    : options_(std::move(options)),
      backend_(backend),
      mailbox_(options_.max_queue_steps, options_.max_queue_bytes),
      table_(options_.shape.slots, options_.shape.layers, options_.first_epoch),
      answers_(options_.replay_bytes) {}

void Engine::Submit(const std::shared_ptr<gdn::Step>& step, absl::Time now) {
  if (device_lost_) {
    return Refuse(*step, DeviceLost());
  }
  switch (mailbox_.Put({now, step, {}})) {
    case Mailbox::Result::kTaken:
      return;
    case Mailbox::Result::kFull:
      return Refuse(*step, FaultOf(v1::ERROR_REASON_QUEUE_FULL, "too many steps are waiting"));
    case Mailbox::Result::kClosed:
      return Refuse(*step, Draining());
  }
}

bool Engine::Submit(Call call, absl::Time now) {
  return mailbox_.Put({now, nullptr, std::move(call)}) == Mailbox::Result::kTaken;
}

void Engine::Refuse(gdn::Step& step, const Fault& fault) { step.done(fault, {}); }

void Engine::Answer(gdn::Step& step, Fault fault, StepAnswer answer) {
  if (!fault.ok() && fault.message.empty()) fault.message = Describe(fault);
  slots_used_ = table_.used();
  mailbox_.Done(step);
  step.done(fault, std::move(answer));
}

void Engine::Close(absl::Time now) {
  mailbox_.Close();
  while (!in_flight_.empty()) EndOldest(now);
  TakeArrivals();
  for (Waiting& waiting : queue_) {
    if (waiting.step == nullptr) {
      waiting.call.run(now);
    } else {
      Answer(*waiting.step, Draining(), {});
    }
  }
  queue_.clear();
}

bool Engine::Step(absl::Time now) {
  TakeArrivals();
  RenewTouched(now);
  ExpireLeases(now);
  DropUnwanted(now);
  if (queue_.empty() && in_flight_.empty()) return false;
  const auto depth = static_cast<size_t>(backend_->depth());
  const std::vector<size_t> chosen = DecideNext(now);
  const bool call = !chosen.empty() && queue_[chosen.front()].step == nullptr;
  if (chosen.empty() || (call && !in_flight_.empty())) {
    EndOldest(now);
  } else if (call) {
    RunCall(chosen.front(), now);
  } else {
    BeginSteps(chosen, now);
    if (in_flight_.size() == depth) EndOldest(now);
  }
  slots_used_ = table_.used();
  return true;
}

// There is room for it: Step leaves one batch less in flight than there may be.
std::vector<size_t> Engine::DecideNext(absl::Time now) {
  items_.clear();
  for (const Waiting& waiting : queue_) items_.push_back(waiting.item);
  in_flight_items_.clear();
  for (const auto& batch : in_flight_) in_flight_items_.push_back(batch->item);
  const BatchLimits limits = {options_.shape.max_rows, options_.shape.max_tokens,
                              options_.prefill_max_wait};
  return Decide(items_, in_flight_items_, limits, after_prefill_, now);
}

std::vector<const gdn::Step*> Engine::in_flight() const {
  std::vector<const gdn::Step*> steps;
  for (const auto& batch : in_flight_) {
    for (const Running& running : batch->running) steps.push_back(running.step.get());
  }
  return steps;
}

void Engine::TakeArrivals() {
  mailbox_.Take(&arrivals_);
  for (Arrival& arrival : arrivals_) {
    Waiting waiting;
    waiting.item.arrival = arrival.time;
    if (arrival.step != nullptr) {
      StepRequest& request = arrival.step->request;
      waiting.item.kind = arrival.step->kind == StepKind::kDecode ? QueueItem::Kind::kDecode
                                                                  : QueueItem::Kind::kPrefill;
      waiting.item.layer = LayerIndex(request.layer);
      waiting.item.layout = request.input_layout;
      waiting.item.rows = static_cast<int64_t>(request.rows());
      waiting.item.tokens = static_cast<int64_t>(request.total_tokens());
      for (size_t row = 0; row < request.rows(); ++row) {
        if (request.padding(row)) continue;
        if (const SequenceKey key = KeyOfRow(request, row); key != 0) {
          waiting.keys.push_back(key);
        } else if (!table_.Expired(request.epochs[row])) {
          request.epochs[row] = 0;
        }
      }
      ++steps_taken_;
    } else {
      waiting.item.kind = QueueItem::Kind::kCall;
      waiting.item.waits_for_all = arrival.call.waits_for_all;
      waiting.item.holds_up = arrival.call.holds_up;
      for (const std::string& id : arrival.call.request_ids) waiting.keys.push_back(KeyOf(id));
    }
    waiting.step = std::move(arrival.step);
    waiting.call = std::move(arrival.call);
    waiting.item.keys = waiting.keys;
    queue_.push_back(std::move(waiting));
  }
  arrivals_.clear();
}

// The sequence a row is about, or 0 where its fence fits none. It must fit none later either: a
// caller knows an epoch only once the step that began it was answered, and one that guesses an
// epoch to come would be beside that sequence's other rows, for which nothing makes it wait. What a
// step in flight began counts as not begun yet.
SequenceKey Engine::KeyOfRow(const StepRequest& request, size_t row) const {
  if (request.by_id()) return KeyOf(request.request_ids[row]);
  const int32_t slot = request.slots[row];
  for (const auto& batch : in_flight_) {
    for (const Running& running : batch->running) {
      if (running.lease.Holds(slot)) return 0;
    }
  }
  const SequenceRecord& record = table_.At(slot);
  return record.epoch != 0 && record.epoch == request.epochs[row] ? record.key : 0;
}

int Engine::LayerIndex(uint32_t layer) const {
  const auto it =
      std::lower_bound(options_.layers.begin(), options_.layers.end(), static_cast<int>(layer));
  assert(it != options_.layers.end() && *it == static_cast<int>(layer));
  return static_cast<int>(it - options_.layers.begin());
}

// A lease that a step gives runs from the step's end, which is the beginning of the next Step.
void Engine::RenewTouched(absl::Time now) {
  for (const auto& [slot, epoch] : touched_) {
    if (table_.At(slot).epoch == epoch) table_.Renew(slot, now + options_.step_ttl);
  }
  touched_.clear();
}

// A lease never ends under a step that arrived before its end, or is in flight.
void Engine::ExpireLeases(absl::Time now) {
  const auto waited_for = [this](int32_t slot) {
    const SequenceRecord& record = table_.At(slot);
    return IsInFlight(record.key) ||
           std::any_of(queue_.begin(), queue_.end(), [&](const Waiting& waiting) {
             return waiting.item.arrival <= record.expires &&
                    std::find(waiting.keys.begin(), waiting.keys.end(), record.key) !=
                        waiting.keys.end();
           });
  };
  for (const int32_t slot : table_.Due(now, waited_for)) {
    answers_.EraseSequence(table_.At(slot).epoch, options_.shape.layers);
    table_.Expire(slot);
  }
  slots_used_ = table_.used();
}

bool Engine::IsInFlight(SequenceKey key) const {
  return std::any_of(in_flight_.begin(), in_flight_.end(), [key](const auto& batch) {
    return std::find(batch->keys.begin(), batch->keys.end(), key) != batch->keys.end();
  });
}

// Steps are given up until their launch: nobody listens, or nobody would listen any more.
void Engine::DropUnwanted(absl::Time now) {
  std::erase_if(queue_, [&](const Waiting& waiting) {
    if (waiting.step == nullptr) return false;
    if (!waiting.step->cancelled && waiting.step->deadline >= now) return false;
    Answer(*waiting.step,
           FaultOf(v1::ERROR_REASON_QUEUE_FULL, "the step did not run before its deadline"), {});
    return true;
  });
}

void Engine::RunCall(size_t index, absl::Time now) {
  const Call call = std::move(queue_[index].call);
  queue_.erase(queue_.begin() + static_cast<ptrdiff_t>(index));
  call.run(now);
}

void Engine::BeginSteps(const std::vector<size_t>& chosen, absl::Time now) {
  if (spare_.empty()) spare_.push_back(std::make_unique<InFlight>());
  InFlight& batch = *spare_.back();
  batch.item = queue_[chosen.front()].item;
  batch.batch.layer = batch.item.layer;
  batch.batch.layout = static_cast<InputLayout>(batch.item.layout);
  batch.keys.clear();
  after_prefill_ = batch.item.kind == QueueItem::Kind::kPrefill;
  for (const size_t index : chosen) Prepare(batch, queue_[index], now);
  size_t next = 0;
  std::erase_if(queue_, [&, index = size_t{0}](const Waiting&) mutable {
    const bool gone = next < chosen.size() && chosen[next] == index;
    if (gone) ++next;
    ++index;
    return gone;
  });
  if (batch.running.empty()) return;

  batch.offsets.assign(1, 0);
  batch.slots.clear();
  batch.has_initial_state.clear();
  batch.keep_answer.clear();
  batch.parts.clear();
  for (Running& running : batch.running) AddToBatch(batch, running);
  Launch(batch);
  in_flight_.push_back(std::move(spare_.back()));
  spare_.pop_back();
}

// Plans the step's rows and makes its output, or answers why not.
bool Engine::Prepare(InFlight& batch, Waiting& waiting, absl::Time now) {
  Running running = {std::move(waiting.step), StateLease(&table_), {}, {}, 0, {}};
  const StepRequest& request = running.step->request;
  const int layer = batch.batch.layer;
  const RowRules rules = {layer, static_cast<uint32_t>(options_.shape.max_decode_tokens), draining_,
                          now, now + options_.step_ttl};
  const Fault fault = PlanRows(request, rules, answers_, &table_, &running.lease, &running.plan);
  if (!fault.ok()) {
    Answer(*running.step, fault, {});
    return false;
  }
  // The store may drop them before this step ends.
  for (size_t row = 0; row < running.plan.size(); ++row) {
    const RowPlan& plan = running.plan[row];
    if (plan.action != RowPlan::Action::kReplay) continue;
    const std::string* kept = answers_.Find(table_.At(plan.slot).epoch, layer);
    if (kept != nullptr) running.kept.emplace(row, *kept);
  }
  const size_t bytes = request.total_tokens() * RowBytes(options_.shape, request.input_layout);
  if (bytes > 0) running.output = running.step->allocate(bytes);
  batch.keys.insert(batch.keys.end(), waiting.keys.begin(), waiting.keys.end());
  batch.running.push_back(std::move(running));
  return true;
}

// Rows that are not to be folded are padding to the backend.
void Engine::AddToBatch(InFlight& batch, Running& running) {
  const StepRequest& request = running.step->request;
  running.first_row = batch.slots.size();
  batch.parts.push_back({batch.offsets.back(), static_cast<int64_t>(request.total_tokens()),
                         request.input, request.synthetic_seed, running.output.address(),
                         request.direct_input, running.output.device != nullptr});
  for (size_t row = 0; row < running.plan.size(); ++row) {
    const RowPlan& plan = running.plan[row];
    const bool fold = plan.action == RowPlan::Action::kFold;
    const uint32_t tokens = request.tokens(row);
    batch.offsets.push_back(batch.offsets.back() + tokens);
    batch.slots.push_back(fold ? plan.slot : kPadSlotId);
    batch.has_initial_state.push_back(fold &&
                                      table_.At(plan.slot).layers[batch.batch.layer].position > 0);
    batch.keep_answer.push_back(fold && request.step_id != 0 &&
                                tokens <= static_cast<uint32_t>(options_.shape.max_decode_tokens));
  }
}

void Engine::Launch(InFlight& batch) {
  batch.item.keys = batch.keys;
  batch.batch.offsets = batch.offsets;
  batch.batch.slots = batch.slots;
  batch.batch.has_initial_state = batch.has_initial_state;
  batch.batch.keep_answer = batch.keep_answer;
  batch.batch.parts = batch.parts;
  if (!device_lost_ && !backend_->Begin(batch.batch).ok()) LoseDevice();
}

void Engine::EndOldest(absl::Time now) {
  std::unique_ptr<InFlight> batch = std::move(in_flight_.front());
  in_flight_.pop_front();
  batch->faults.resize(batch->slots.size());
  if (!device_lost_ && !backend_->End(batch->faults).ok()) LoseDevice();
  if (device_lost_) std::fill(batch->faults.begin(), batch->faults.end(), RowFault::kDevice);
  for (Running& running : batch->running) Finish(*batch, running, now);
  batch->running.clear();  // and with it the sequences that were begun by rows that failed
  spare_.push_back(std::move(batch));
}

// Whatever is in flight is lost with it.
void Engine::LoseDevice() {
  device_lost_ = true;
  if (options_.on_device_lost) options_.on_device_lost();
}

void Engine::Finish(InFlight& batch, Running& running, absl::Time now) {
  const StepRequest& request = running.step->request;
  StepAnswer answer;
  CopyReplays(batch, running);
  for (size_t row = 0; row < running.plan.size(); ++row) {
    const RowPlan& plan = running.plan[row];
    if (!request.by_id()) break;
    const bool pad = plan.action == RowPlan::Action::kPad;
    answer.slots.push_back(pad ? kPadSlotId : plan.slot);
    answer.epochs.push_back(pad ? 0 : table_.At(plan.slot).epoch);
  }
  for (const RowPlan& plan : running.plan) {
    answer.replayed_rows += plan.action == RowPlan::Action::kReplay;
  }
  Fault fault = Commit(batch, running, now);
  if (fault.ok() && device_lost_) fault = DeviceLost();
  if (fault.ok() && !request.discard_output && !running.output.shared) {
    answer.output = running.output;
  }
  if (fault.ok() && request.release_after) {
    for (const RowPlan& plan : running.plan) {
      if (plan.action != RowPlan::Action::kPad) Release(plan.slot);
    }
  }
  Answer(*running.step, fault, std::move(answer));
}

// Commits the rows without a fault; names the others.
Fault Engine::Commit(InFlight& batch, Running& running, absl::Time now) {
  Fault fault;
  for (size_t row = 0; row < running.plan.size(); ++row) {
    const RowPlan& plan = running.plan[row];
    if (plan.action == RowPlan::Action::kPad) continue;
    const RowFault what = plan.action == RowPlan::Action::kTouch
                              ? RowFault::kNone
                              : batch.faults[running.first_row + row];
    const auto index = static_cast<uint32_t>(row);
    switch (what) {
      case RowFault::kNone:
        running.lease.Commit(plan.slot);
        CommitRow(batch, running, row, now);
        break;
      case RowFault::kNonFiniteInput:
        fault.AddRow(v1::ERROR_REASON_NON_FINITE_INPUT, index);
        break;
      case RowFault::kOverflow:
        table_.At(plan.slot).poisoned = true;
        fault.AddRow(v1::ERROR_REASON_STATE_POISONED, index);
        break;
      case RowFault::kDevice:
        table_.At(plan.slot).poisoned = true;
        fault.AddRow(v1::ERROR_REASON_DEVICE_ERROR, index);
        break;
    }
  }
  return fault;
}

void Engine::CommitRow(const InFlight& batch, const Running& running, size_t row, absl::Time now) {
  const RowPlan& plan = running.plan[row];
  const StepRequest& request = running.step->request;
  SequenceRecord& record = table_.At(plan.slot);
  table_.Renew(plan.slot, now + options_.step_ttl);
  touched_.emplace_back(plan.slot, record.epoch);
  if (plan.action != RowPlan::Action::kFold) return;
  LayerCursor& cursor = record.layers[batch.batch.layer];
  cursor.step_id = request.step_id;
  cursor.step_position = cursor.position;
  cursor.step_tokens = request.tokens(row);
  cursor.step_layout = static_cast<uint8_t>(request.input_layout);
  cursor.position += request.tokens(row);
  KeepAnswer(batch, running, row);
}

// Decode answers are in the backend's pool already; larger ones are copied while there is room.
void Engine::KeepAnswer(const InFlight& batch, const Running& running, size_t row) {
  const StepRequest& request = running.step->request;
  const uint64_t epoch = table_.At(running.plan[row].slot).epoch;
  answers_.Erase(epoch, batch.batch.layer);
  const bool large = request.tokens(row) > static_cast<uint32_t>(options_.shape.max_decode_tokens);
  if (request.step_id == 0 || !large) return;
  const size_t row_bytes = RowBytes(options_.shape, request.input_layout);
  const size_t first = static_cast<size_t>(batch.TokensBefore(running, row)) * row_bytes;
  const size_t bytes = request.tokens(row) * row_bytes;
  if (running.output.data != nullptr) {
    answers_.Put(epoch, batch.batch.layer, {running.output.data + first, bytes});
    return;
  }
  std::vector<std::byte> answer(bytes);
  if (running.output.Read(first, answer)) answers_.Put(epoch, batch.batch.layer, answer);
}

// A stored answer that the device does not give back is a fault of its row.
void Engine::CopyReplays(InFlight& batch, const Running& running) {
  if (device_lost_) return;
  const StepRequest& request = running.step->request;
  const size_t row_bytes = RowBytes(options_.shape, request.input_layout);
  for (size_t row = 0; row < running.plan.size(); ++row) {
    const RowPlan& plan = running.plan[row];
    if (plan.action != RowPlan::Action::kReplay) continue;
    const size_t first = static_cast<size_t>(batch.TokensBefore(running, row)) * row_bytes;
    if (!CopyReplay(batch, running, row, first, request.tokens(row) * row_bytes)) {
      batch.faults[running.first_row + row] = RowFault::kDevice;
    }
  }
}

bool Engine::CopyReplay(const InFlight& batch, const Running& running, size_t row, size_t at,
                        size_t bytes) {
  if (const auto kept = running.kept.find(row); kept != running.kept.end()) {
    return running.output.Write(at, std::as_bytes(std::span(kept->second)));
  }
  const int32_t slot = running.plan[row].slot;
  if (running.output.data != nullptr) {
    return backend_->ReadAnswer(batch.batch.layer, slot, {running.output.data + at, bytes}).ok();
  }
  std::vector<std::byte> answer(bytes);
  return backend_->ReadAnswer(batch.batch.layer, slot, answer).ok() &&
         running.output.Write(at, answer);
}

void Engine::Release(int32_t slot) {
  answers_.EraseSequence(table_.At(slot).epoch, options_.shape.layers);
  table_.Free(slot);
}

}  // namespace gdn
