#include "server/engine/engine.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/engine/input_check.h"

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

bool Concerns(const Task& task, SequenceKey key) {
  return std::find(task.keys.begin(), task.keys.end(), key) != task.keys.end();
}

// Whether nobody listens to the step or call, or nobody would listen any more.
template <typename Waiting>
bool IsGivenUp(const Waiting& waiting, absl::Time now) {
  return waiting.cancelled || waiting.deadline < now;
}

bool IsUnwanted(const Task& task, absl::Time now) {
  return task.step != nullptr ? IsGivenUp(*task.step, now) : IsGivenUp(*task.call, now);
}

}  // namespace

Engine::Engine(EngineOptions options, Backend* backend)
    : options_(std::move(options)),
      backend_(backend),
      overlaps_(backend->depth() > 1),
      observer_(options_.observer != nullptr ? options_.observer : &no_observer_),
      mailbox_(options_.max_queue_steps, options_.max_queue_rows, options_.max_queue_bytes),
      table_(options_.shape.slots, options_.shape.layers, options_.first_epoch),
      answers_(options_.replay_bytes),
      lines_(static_cast<size_t>(options_.shape.slots)) {}

void Engine::Submit(const std::shared_ptr<gdn::Step>& step, absl::Time now) {
  // First, since nothing keeps this engine once the step is answered.
  outbox_->SendOne();
  step->submitted = now;
  if (device_lost_) {
    return Refuse(*step, DeviceLost());
  }
  Mailbox::Result result = Mailbox::Result::kTaken;
  if (IsCut(step->kind, step->request, cut_rules())) {
    result = mailbox_.Room(*step);
    if (result == Mailbox::Result::kTaken && !step->known_finite) CheckInput(*step);
  }
  if (result == Mailbox::Result::kTaken) result = mailbox_.Put({now, step, nullptr});
  if (result == Mailbox::Result::kFull) {
    Refuse(*step, FaultOf(v1::ERROR_REASON_QUEUE_FULL, "too many steps are waiting"));
  } else if (result == Mailbox::Result::kClosed) {
    Refuse(*step, Draining());
  }
}

std::vector<InputTensor> Engine::TensorsOf(const StepRequest& request) const {
  const auto layout = static_cast<InputLayout>(request.input_layout);
  return InputTensors(options_.shape.geometry, layout, options_.shape.io);
}

void Engine::CheckInput(gdn::Step& step) const {
  step.non_finite = NonFiniteRows(step.request, TensorsOf(step.request));
}

std::optional<DType> Engine::TypeToCheck(const gdn::Step& step) const {
  if (!IsCut(step.kind, step.request, cut_rules())) return std::nullopt;
  const DType type = options_.shape.io;
  for (const InputTensor& tensor : TensorsOf(step.request)) {
    if (tensor.type != type) return std::nullopt;
  }
  return type;
}

void Engine::Submit(const std::shared_ptr<Call>& call, absl::Time now) {
  const Mailbox::Result result = mailbox_.Put({now, nullptr, call});
  if (result == Mailbox::Result::kFull) {
    call->refuse(FaultOf(v1::ERROR_REASON_QUEUE_FULL, "too many calls are waiting"));
  } else if (result == Mailbox::Result::kClosed) {
    call->refuse(Draining());
  }
}

CutRules Engine::cut_rules() const {
  return {options_.prefill_chunk, static_cast<uint32_t>(options_.shape.max_decode_tokens)};
}

void Engine::Refuse(gdn::Step& step, const Fault& fault) { step.done(fault, {}); }

// To be sent by whoever calls this, or by others.
void Engine::Answer(const Task& task, Fault fault, StepAnswer answer) {
  if (!fault.ok() && fault.message.empty()) fault.message = Describe(fault);
  slots_used_ = table_.used();
  mailbox_.Done(*task.step);
  observer_->StepEnds(*task.step, answer);
  outbox_->Put({task.step, std::move(fault), std::move(answer)});
}

void Engine::RunCall(Call& call, absl::Time now) {
  mailbox_.Done(call);
  call.run(now);
}

void Engine::Close(absl::Time now) {
  mailbox_.Close();
  while (!in_flight_.empty()) EndOldest(now);
  while (begun_ != nullptr) {
    const auto at = std::find_if(queue_.begin(), queue_.end(),
                                 [this](const auto& task) { return task.get() == begun_; });
    BeginSteps(TakeFromQueue({static_cast<size_t>(at - queue_.begin())}), now);
    EndOldest(now);
  }
  TakeArrivals();
  for (const std::shared_ptr<Task>& task : queue_) {
    lines_.Leave(&task->item);
    if (task->step == nullptr) {
      RunCall(*task->call, now);
    } else {
      Answer(*task, Draining(), {});
    }
  }
  outbox_->SendAll();
  queue_.clear();
}

bool Engine::Step(absl::Time now) {
  observer_->TimeIs(now);
  TakeArrivals();
  RenewTouched(now);
  ExpireLeases(now);
  DropUnwanted(now);
  if (queue_.empty() && in_flight_.empty()) return false;
  Run(DecideNext(now), now);
  slots_used_ = table_.used();
  return true;
}

// A call, or a batch beside those in flight, or the wait for the oldest of them.
void Engine::Run(const std::vector<size_t>& chosen, absl::Time now) {
  const bool call = !chosen.empty() && queue_[chosen.front()]->step == nullptr;
  if (chosen.empty() || (call && !in_flight_.empty())) return EndOldest(now);
  Tasks tasks = TakeFromQueue(chosen);
  if (call) return RunCall(*tasks.front()->call, now);
  BeginSteps(std::move(tasks), now);
  if (in_flight_.size() == static_cast<size_t>(backend_->depth())) EndOldest(now);
}

// There is room for it: Step leaves one batch less in flight than there may be. Where one thing
// waits and nothing runs there is nothing to order.
std::vector<size_t> Engine::DecideNext(absl::Time now) {
  if (queue_.size() == 1 && in_flight_.empty()) return {0};
  items_.clear();
  for (const std::shared_ptr<Task>& task : queue_) {
    if (task->item.lines.size() != task->keys.size()) lines_.Join(task->keys, &task->item);
    items_.push_back(&task->item);
  }
  in_flight_items_.clear();
  for (const auto& batch : in_flight_) in_flight_items_.push_back(batch->item);
  const BatchLimits limits = {options_.shape.max_rows, options_.shape.max_tokens,
                              options_.prefill_max_wait};
  return Decide(items_, in_flight_items_, limits, after_prefill_, now);
}

Engine::Tasks Engine::TakeFromQueue(const std::vector<size_t>& chosen) {
  Tasks taken;
  for (const size_t index : chosen) {
    lines_.Leave(&queue_[index]->item);
    taken.push_back(std::move(queue_[index]));
  }
  std::erase(queue_, nullptr);
  return taken;
}

std::vector<const gdn::Step*> Engine::in_flight() const {
  std::vector<const gdn::Step*> steps;
  for (const auto& batch : in_flight_) {
    for (const auto& piece : batch->pieces) steps.push_back(piece.task->step.get());
  }
  return steps;
}

void Engine::TakeArrivals() {
  mailbox_.Take(&arrivals_);
  for (Arrival& arrival : arrivals_) {
    auto task = std::make_shared<Task>(&table_);
    task->item.arrival = arrival.time;
    task->item.serial = ++next_serial_;
    task->step = std::move(arrival.step);
    task->call = std::move(arrival.call);
    task->step != nullptr ? TakeStep(*task) : TakeCall(*task);
    queue_.push_back(std::move(task));
  }
  arrivals_.clear();
}

void Engine::TakeStep(Task& task) {
  StepRequest& request = task.step->request;
  task.item.kind =
      task.step->kind == StepKind::kDecode ? QueueItem::Kind::kDecode : QueueItem::Kind::kPrefill;
  task.item.layer = LayerIndex(request.layer);
  task.item.layout = request.input_layout;
  task.item.rows = static_cast<int64_t>(request.rows());
  task.item.tokens = static_cast<int64_t>(request.total_tokens());
  task.item.cut = IsCut(task.step->kind, request, cut_rules());
  task.keys.reserve(request.rows());
  for (size_t row = 0; row < request.rows(); ++row) {
    if (request.padding(row)) continue;
    if (const SequenceKey key = KeyOfRow(request, row); key != 0) {
      task.keys.push_back(key);
    } else if (!table_.Expired(request.epochs[row])) {
      request.epochs[row] = 0;
    }
  }
  ++steps_taken_;
}

void Engine::TakeCall(Task& task) {
  const CallPlace& place = task.call->place;
  task.item.kind = QueueItem::Kind::kCall;
  task.item.waits_for_all = place.waits_for_all;
  task.item.holds_up = place.holds_up;
  for (const std::string& id : place.request_ids) task.keys.push_back(KeyOf(id));
  std::sort(task.keys.begin(), task.keys.end());
  task.keys.erase(std::unique(task.keys.begin(), task.keys.end()), task.keys.end());
}

// The sequence a row is about, or 0 where its fence fits none. It must fit none later either: a
// caller knows an epoch only once the step that began it was answered, and one that guesses an
// epoch to come would be beside that sequence's other rows, for which nothing makes it wait. What a
// step in flight, or between its pieces, began counts as not begun yet.
SequenceKey Engine::KeyOfRow(const StepRequest& request, size_t row) const {
  if (request.by_id()) return KeyOf(request.request_ids[row]);
  const int32_t slot = request.slots[row];
  if (begun_ != nullptr && begun_->lease.Holds(slot)) return 0;
  for (const auto& batch : in_flight_) {
    for (const auto& piece : batch->pieces) {
      if (piece.task->lease.Holds(slot)) return 0;
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

// A lease never ends under a step that arrived before its end, or has begun.
void Engine::ExpireLeases(absl::Time now) {
  const auto waited_for = [this](int32_t slot) {
    const SequenceRecord& record = table_.At(slot);
    return IsInFlight(record.key) ||
           std::any_of(queue_.begin(), queue_.end(), [&](const auto& task) {
             return (task->item.begun || task->item.arrival <= record.expires) &&
                    Concerns(*task, record.key);
           });
  };
  for (const int32_t slot : table_.Due(now, waited_for)) {
    answers_.EraseSequence(table_.At(slot).epoch, options_.shape.layers);
    table_.Expire(slot);
    observer_->LeaseExpired();
  }
  slots_used_ = table_.used();
}

bool Engine::IsInFlight(SequenceKey key) const {
  return std::any_of(in_flight_.begin(), in_flight_.end(), [key](const auto& batch) {
    return std::any_of(batch->pieces.begin(), batch->pieces.end(),
                       [key](const auto& piece) { return Concerns(*piece.task, key); });
  });
}

// Steps are given up until their launch, and calls until they run.
void Engine::DropUnwanted(absl::Time now) {
  std::erase_if(queue_, [&](const auto& task) {
    if (task->item.begun || !IsUnwanted(*task, now)) return false;
    Drop(*task);
    return true;
  });
  outbox_->SendAll();
}

void Engine::Drop(Task& task) {
  lines_.Leave(&task.item);
  const Fault fault = FaultOf(v1::ERROR_REASON_QUEUE_FULL, "it did not run before its deadline");
  if (task.step != nullptr) return Answer(task, fault, {});
  mailbox_.Done(*task.call);
  task.call->refuse(fault);
}

void Engine::Release(int32_t slot) {
  answers_.EraseSequence(table_.At(slot).epoch, options_.shape.layers);
  table_.Free(slot);
}

}  // namespace gdn
