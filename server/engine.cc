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
  mailbox_.Done(step);
  step.done(fault, std::move(answer));
}

void Engine::Close(absl::Time now) {
  mailbox_.Close();
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
  if (queue_.empty()) return false;

  items_.clear();
  for (const Waiting& waiting : queue_) items_.push_back(waiting.item);
  const BatchLimits limits = {options_.shape.max_rows, options_.shape.max_tokens,
                              options_.prefill_max_wait};
  const std::vector<size_t> chosen = Decide(items_, limits, after_prefill_, now);
  if (queue_[chosen.front()].step == nullptr) {
    RunCall(chosen.front(), now);
  } else {
    RunSteps(chosen, now);
  }
  slots_used_ = table_.used();
  return true;
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
// epoch to come would be beside that sequence's other rows, for which nothing makes it wait.
SequenceKey Engine::KeyOfRow(const StepRequest& request, size_t row) const {
  if (request.by_id()) return KeyOf(request.request_ids[row]);
  const SequenceRecord& record = table_.At(request.slots[row]);
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

// A lease never ends under a step that arrived before its end.
void Engine::ExpireLeases(absl::Time now) {
  const auto waited_for = [this](int32_t slot) {
    const SequenceRecord& record = table_.At(slot);
    return std::any_of(queue_.begin(), queue_.end(), [&](const Waiting& waiting) {
      return waiting.item.arrival <= record.expires &&
             std::find(waiting.keys.begin(), waiting.keys.end(), record.key) != waiting.keys.end();
    });
  };
  for (const int32_t slot : table_.Due(now, waited_for)) {
    answers_.EraseSequence(table_.At(slot).epoch, options_.shape.layers);
    table_.Expire(slot);
  }
  slots_used_ = table_.used();
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

void Engine::RunSteps(const std::vector<size_t>& chosen, absl::Time now) {
  const int layer = queue_[chosen.front()].item.layer;
  const int layout = queue_[chosen.front()].item.layout;
  after_prefill_ = queue_[chosen.front()].item.kind == QueueItem::Kind::kPrefill;
  running_.clear();
  for (const size_t index : chosen) Prepare(std::move(queue_[index].step), layer, now);
  size_t next = 0;
  std::erase_if(queue_, [&, index = size_t{0}](const Waiting&) mutable {
    const bool gone = next < chosen.size() && chosen[next] == index;
    if (gone) ++next;
    ++index;
    return gone;
  });
  if (running_.empty()) return;

  offsets_.assign(1, 0);
  slots_.clear();
  has_initial_state_.clear();
  keep_answer_.clear();
  parts_.clear();
  for (Running& running : running_) {
    running.first_row = slots_.size();
    AddToBatch(running, layer);
  }
  Launch(layer, layout);
  for (Running& running : running_) Finish(running, layer, now);
  running_.clear();  // and with it the sequences that were begun by rows that failed
}

// Plans the step's rows and makes its output, or answers why not.
bool Engine::Prepare(std::shared_ptr<gdn::Step> step, int layer, absl::Time now) {
  Running running = {std::move(step), StateLease(&table_), {}, 0, {}};
  const StepRequest& request = running.step->request;
  const RowRules rules = {layer, static_cast<uint32_t>(options_.shape.max_decode_tokens), draining_,
                          now, now + options_.step_ttl};
  const Fault fault = PlanRows(request, rules, answers_, &table_, &running.lease, &running.plan);
  if (!fault.ok()) {
    Answer(*running.step, fault, {});
    return false;
  }
  const size_t bytes = request.total_tokens() * RowBytes(options_.shape, request.input_layout);
  if (bytes > 0) running.output = running.step->allocate(bytes);
  running_.push_back(std::move(running));
  return true;
}

// Rows that are not to be folded are padding to the backend.
void Engine::AddToBatch(const Running& running, int layer) {
  const StepRequest& request = running.step->request;
  parts_.push_back({offsets_.back(), static_cast<int64_t>(request.total_tokens()), request.input,
                    request.synthetic_seed, running.output.data});
  for (size_t row = 0; row < running.plan.size(); ++row) {
    const RowPlan& plan = running.plan[row];
    const bool fold = plan.action == RowPlan::Action::kFold;
    const uint32_t tokens = request.tokens(row);
    offsets_.push_back(offsets_.back() + tokens);
    slots_.push_back(fold ? plan.slot : kPadSlotId);
    has_initial_state_.push_back(fold && table_.At(plan.slot).layers[layer].position > 0);
    keep_answer_.push_back(fold && request.step_id != 0 &&
                           tokens <= static_cast<uint32_t>(options_.shape.max_decode_tokens));
  }
}

void Engine::Launch(int layer, int layout) {
  Batch batch;
  batch.layer = layer;
  batch.layout = static_cast<InputLayout>(layout);
  batch.offsets = offsets_;
  batch.slots = slots_;
  batch.has_initial_state = has_initial_state_;
  batch.keep_answer = keep_answer_;
  batch.parts = parts_;
  faults_.assign(slots_.size(), RowFault::kNone);
  if (device_lost_ || !backend_->Run(batch, faults_).ok()) {
    std::fill(faults_.begin(), faults_.end(), RowFault::kDevice);
    if (!device_lost_.exchange(true) && options_.on_device_lost) options_.on_device_lost();
  }
}

void Engine::Finish(Running& running, int layer, absl::Time now) {
  const StepRequest& request = running.step->request;
  StepAnswer answer;
  CopyReplays(running, layer);
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
  Fault fault = Commit(running, layer, now);
  if (fault.ok() && device_lost_) fault = DeviceLost();
  if (fault.ok() && !request.discard_output) answer.output = running.output;
  if (fault.ok() && request.release_after) {
    for (const RowPlan& plan : running.plan) {
      if (plan.action != RowPlan::Action::kPad) Release(plan.slot);
    }
  }
  Answer(*running.step, fault, std::move(answer));
}

// Commits the rows without a fault; names the others.
Fault Engine::Commit(Running& running, int layer, absl::Time now) {
  Fault fault;
  for (size_t row = 0; row < running.plan.size(); ++row) {
    const RowPlan& plan = running.plan[row];
    if (plan.action == RowPlan::Action::kPad) continue;
    const RowFault what =
        plan.action == RowPlan::Action::kTouch ? RowFault::kNone : faults_[running.first_row + row];
    const auto index = static_cast<uint32_t>(row);
    switch (what) {
      case RowFault::kNone:
        running.lease.Commit(plan.slot);
        CommitRow(running, row, layer, now);
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

void Engine::CommitRow(const Running& running, size_t row, int layer, absl::Time now) {
  const RowPlan& plan = running.plan[row];
  const StepRequest& request = running.step->request;
  SequenceRecord& record = table_.At(plan.slot);
  table_.Renew(plan.slot, now + options_.step_ttl);
  touched_.emplace_back(plan.slot, record.epoch);
  if (plan.action != RowPlan::Action::kFold) return;
  LayerCursor& cursor = record.layers[layer];
  cursor.step_id = request.step_id;
  cursor.step_position = cursor.position;
  cursor.step_tokens = request.tokens(row);
  cursor.step_layout = static_cast<uint8_t>(request.input_layout);
  cursor.position += request.tokens(row);
  KeepAnswer(running, row, layer);
}

// Decode answers are in the backend's pool already; larger ones are copied while there is room.
void Engine::KeepAnswer(const Running& running, size_t row, int layer) {
  const StepRequest& request = running.step->request;
  const uint64_t epoch = table_.At(running.plan[row].slot).epoch;
  answers_.Erase(epoch, layer);
  const bool large = request.tokens(row) > static_cast<uint32_t>(options_.shape.max_decode_tokens);
  if (request.step_id == 0 || !large) return;
  const size_t row_bytes = RowBytes(options_.shape, request.input_layout);
  const int64_t first = offsets_[running.first_row + row] - offsets_[running.first_row];
  answers_.Put(epoch, layer,
               {running.output.data + static_cast<size_t>(first) * row_bytes,
                request.tokens(row) * row_bytes});
}

// A stored answer that the device does not give back is a fault of its row.
void Engine::CopyReplays(const Running& running, int layer) {
  if (device_lost_) return;
  const StepRequest& request = running.step->request;
  const size_t row_bytes = RowBytes(options_.shape, request.input_layout);
  for (size_t row = 0; row < running.plan.size(); ++row) {
    const RowPlan& plan = running.plan[row];
    if (plan.action != RowPlan::Action::kReplay) continue;
    const int64_t first = offsets_[running.first_row + row] - offsets_[running.first_row];
    const std::span<std::byte> out(running.output.data + static_cast<size_t>(first) * row_bytes,
                                   request.tokens(row) * row_bytes);
    const std::string* kept = answers_.Find(table_.At(plan.slot).epoch, layer);
    if (kept != nullptr) {
      std::memcpy(out.data(), kept->data(), out.size());
    } else if (!backend_->ReadAnswer(layer, plan.slot, out).ok()) {
      faults_[running.first_row + row] = RowFault::kDevice;
    }
  }
}

void Engine::Release(int32_t slot) {
  answers_.EraseSequence(table_.At(slot).epoch, options_.shape.layers);
  table_.Free(slot);
}

}  // namespace gdn
