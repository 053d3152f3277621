// The engine's steps from their turn to their answer.
#include <algorithm>
#include <utility>

#include "kernels/stream_copy.h"
#include "server/engine/engine.h"
#include "server/engine/shares.h"

namespace gdn {
namespace {

Fault DeviceLost() { return FaultOf(v1::ERROR_REASON_DEVICE_ERROR, "the device is lost"); }

size_t RowBytes(const BackendShape& shape, int layout) {
  return OutputRowBytes(shape.geometry, static_cast<InputLayout>(layout), shape.io);
}

// Whether a step that fails has no row left to go on with.
bool IsSpoilt(const Task& task) {
  const auto fails = [](RowFault fault) { return fault != RowFault::kNone; };
  if (std::none_of(task.faults.begin(), task.faults.end(), fails)) return false;
  for (size_t row = task.next.row; row < task.plan.size(); ++row) {
    if (task.Folds(row)) return false;
  }
  return true;
}

}  // namespace

void Engine::BeginSteps(Tasks tasks, absl::Time now) {
  after_prefill_ = tasks.front()->item.kind == QueueItem::Kind::kPrefill;
  std::erase_if(tasks, [&](const auto& task) { return !Prepare(*task, now); });
  outbox_->SendAll();
  if (tasks.empty()) return;
  if (spare_.empty()) spare_.push_back(std::make_unique<InFlight>());
  InFlight& batch = *spare_.back();
  const QueueItem& first = tasks.front()->item;
  batch.batch.layer = first.layer;
  batch.batch.layout = static_cast<InputLayout>(first.layout);
  batch.offsets.assign(1, 0);
  batch.slots.clear();
  batch.has_initial_state.clear();
  batch.keep_answer.clear();
  batch.parts.clear();
  for (const std::shared_ptr<Task>& task : tasks) AddToBatch(batch, task);
  batch.item = {first.kind, first.layer};
  Launch(batch);
  in_flight_.push_back(std::move(spare_.back()));
  spare_.pop_back();
  // The next piece may begin while this one runs.
  if (tasks.front()->HasMore() && !IsLost(*tasks.front())) PutBack(std::move(tasks.front()));
}

// Plans the step's rows and makes its output, or answers why not. Once, before its first piece.
bool Engine::Prepare(Task& task, absl::Time now) {
  if (task.item.begun) {
    task.item.begun = false;
    begun_ = nullptr;
    return true;
  }
  observer_->StepBegins(*task.step);
  const StepRequest& request = task.step->request;
  const int layer = task.item.layer;
  const RowRules rules = {layer, static_cast<uint32_t>(options_.shape.max_decode_tokens), draining_,
                          now, now + options_.step_ttl};
  const Fault fault = PlanRows(request, rules, answers_, &table_, &task.lease, &task.plan);
  if (!fault.ok()) {
    Answer(task, fault, {});
    return false;
  }
  // The store may drop them before this step ends.
  for (size_t row = 0; row < task.plan.size(); ++row) {
    const RowPlan& plan = task.plan[row];
    if (plan.action != RowPlan::Action::kReplay) continue;
    auto kept = answers_.Find(table_.At(plan.slot).epoch, layer);
    if (kept != nullptr) task.kept.emplace(row, std::move(kept));
  }
  task.faults.assign(task.plan.size(), RowFault::kNone);
  for (const uint32_t row : task.step->non_finite) {
    if (task.Folds(row)) task.faults[row] = RowFault::kNonFiniteInput;
  }
  const size_t bytes = request.total_tokens() * RowBytes(options_.shape, request.input_layout);
  if (bytes > 0) task.output = task.step->allocate(bytes);
  return true;
}

// Rows that are not to be folded are padding to the backend.
void Engine::AddToBatch(InFlight& batch, const std::shared_ptr<Task>& shared) {
  Task& task = *shared;
  const StepRequest& request = task.step->request;
  const StepCursor end =
      task.item.cut ? EndOfPiece(request, task.next, cut_rules()) : StepCursor{request.rows(), 0};
  batch.pieces.push_back({shared, task.next, end, batch.slots.size(), {}});
  TaskPiece& piece = batch.pieces.back();
  task.next = end;
  ++task.in_flight;
  batch.parts.push_back(PartOf(batch, piece));
  for (size_t row = piece.begin.row; row < piece.end_row(); ++row) {
    const bool fold = task.Folds(row);
    const uint32_t first = row == piece.begin.row ? piece.begin.token : 0;
    const uint32_t last = row == piece.end.row ? piece.end.token : request.tokens(row);
    const uint32_t tokens = request.tokens(row);
    batch.offsets.push_back(batch.offsets.back() + (last - first));
    batch.slots.push_back(fold ? task.plan[row].slot : kPadSlotId);
    batch.has_initial_state.push_back(
        fold && (first > 0 || table_.At(task.plan[row].slot).layers[task.item.layer].position > 0));
    batch.keep_answer.push_back(fold && request.step_id != 0 &&
                                tokens <= static_cast<uint32_t>(options_.shape.max_decode_tokens));
  }
}

BatchPart Engine::PartOf(const InFlight& batch, TaskPiece& piece) const {
  const Task& task = *piece.task;
  const StepRequest& request = task.step->request;
  const auto total = static_cast<int64_t>(request.total_tokens());
  BatchPart part;
  part.first_token = batch.offsets.back();
  part.tokens = total;
  part.input = request.input;
  part.synthetic_seed = request.synthetic_seed;
  part.output = task.output.address();
  part.direct_input = request.direct_input;
  part.direct_output = task.output.direct;
  if (!task.item.cut) return part;
  const int64_t before = TokensBefore(request, piece.begin);
  part.tokens = TokensBefore(request, piece.end) - before;
  part.tokens_before = before;
  part.tokens_after = total - before - part.tokens;
  piece.input = InputOf(request, TensorsOf(request), before, part.tokens);
  part.input = piece.input;
  part.output += static_cast<size_t>(before) * RowBytes(options_.shape, request.input_layout);
  return part;
}

void Engine::Launch(InFlight& batch) {
  batch.batch.offsets = batch.offsets;
  batch.batch.slots = batch.slots;
  batch.batch.has_initial_state = batch.has_initial_state;
  batch.batch.keep_answer = batch.keep_answer;
  batch.batch.parts = batch.parts;
  observer_->BatchBegins(batch.pieces.front().task->step->kind, batch.batch);
  if (!device_lost_ && !backend_->Begin(batch.batch).ok()) LoseDevice();
  // While it runs, as all that the batch does not wait for.
  if (overlaps_) {
    for (const TaskPiece& piece : batch.pieces) lines_.Hold(piece.task->keys);
    if (batch.pieces.size() == 1 && queue_.empty()) TellBegun(batch.pieces.front());
  }
}

void Engine::TellBegun(const TaskPiece& piece) const {
  const bool first = piece.begin.row == 0 && piece.begin.token == 0;
  const gdn::Step& step = *piece.task->step;
  if (first && !device_lost_ && step.begun) step.begun();
}

void Engine::EndOldest(absl::Time now) {
  std::unique_ptr<InFlight> batch = std::move(in_flight_.front());
  in_flight_.pop_front();
  batch->faults.resize(batch->slots.size());
  if (!device_lost_ && !backend_->End(batch->faults).ok()) LoseDevice();
  observer_->BatchEnded();
  for (const TaskPiece& piece : batch->pieces) {
    Task& task = *piece.task;
    TakeFaults(*batch, piece);
    --task.in_flight;
    if (begun_ == &task && IsLost(task)) Withdraw(task);
    if (IsOver(task)) Finish(task, now);
  }
  outbox_->SendAll();
  for (const TaskPiece& piece : batch->pieces) {
    if (overlaps_) lines_.LetGo(piece.task->keys);
    // What nobody waits for at the end of a step.
    if (IsOver(*piece.task) && !piece.task->output.shared) KeepAnswers(*piece.task);
  }
  batch->pieces.clear();
  spare_.push_back(std::move(batch));
}

// What became of the rows in the batch. Of a row of which other pieces write state, too, nothing
// but an end is good.
void Engine::TakeFaults(const InFlight& batch, const TaskPiece& piece) const {
  Task& task = *piece.task;
  if (device_lost_) return task.faults.assign(task.plan.size(), RowFault::kDevice);
  for (size_t row = piece.begin.row; row < piece.end_row(); ++row) {
    RowFault fault = batch.faults[piece.first_row + row - piece.begin.row];
    if (fault == RowFault::kNonFiniteInput && piece.Splits(row)) fault = RowFault::kOverflow;
    if (task.Folds(row)) task.faults[row] = fault;
  }
}

// Whether no piece of it need begin any more.
bool Engine::IsLost(const Task& task) const { return device_lost_ || IsSpoilt(task); }

bool Engine::IsOver(const Task& task) const {
  return task.in_flight == 0 && (!task.HasMore() || IsLost(task));
}

// To its place in the queue, with the pieces that have not begun.
void Engine::PutBack(std::shared_ptr<Task> task) {
  task->item.begun = true;
  begun_ = task.get();
  const auto at = std::upper_bound(
      queue_.begin(), queue_.end(), task,
      [](const auto& a, const auto& b) { return a->item.serial < b->item.serial; });
  queue_.insert(at, std::move(task));
}

// From there.
void Engine::Withdraw(Task& task) {
  lines_.Leave(&task.item);
  std::erase_if(queue_, [&task](const auto& other) { return other.get() == &task; });
  begun_ = nullptr;
}

// Whatever is in flight is lost with it.
void Engine::LoseDevice() {
  device_lost_ = true;
  if (options_.on_device_lost) options_.on_device_lost();
}

void Engine::Finish(Task& task, absl::Time now) {
  const StepRequest& request = task.step->request;
  StepAnswer answer;
  CopyReplays(task);
  for (const RowPlan& plan : task.plan) {
    if (!request.by_id()) break;
    const bool pad = plan.action == RowPlan::Action::kPad;
    answer.slots.push_back(pad ? kPadSlotId : plan.slot);
    answer.epochs.push_back(pad ? 0 : table_.At(plan.slot).epoch);
  }
  for (const RowPlan& plan : task.plan) {
    answer.replayed_rows += plan.action == RowPlan::Action::kReplay;
  }
  Fault fault = Commit(task, now);
  if (fault.ok() && device_lost_) fault = DeviceLost();
  if (fault.ok() && !request.discard_output && !task.output.shared) answer.output = task.output;
  if (fault.ok() && request.release_after) {
    for (const RowPlan& plan : task.plan) {
      if (plan.action != RowPlan::Action::kPad) Release(plan.slot);
    }
  }
  // Only what the caller can overwrite is copied while it waits.
  if (task.output.shared) KeepAnswers(task);
  Answer(task, fault, std::move(answer));
}

// Commits the rows without a fault; names the others.
Fault Engine::Commit(Task& task, absl::Time now) {
  Fault fault;
  for (size_t row = 0; row < task.plan.size(); ++row) {
    const RowPlan& plan = task.plan[row];
    if (plan.action == RowPlan::Action::kPad) continue;
    const bool touch = plan.action == RowPlan::Action::kTouch;
    const auto index = static_cast<uint32_t>(row);
    switch (touch ? RowFault::kNone : task.faults[row]) {
      case RowFault::kNone:
        task.lease.Commit(plan.slot);
        CommitRow(task, row, now);
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

void Engine::CommitRow(const Task& task, size_t row, absl::Time now) {
  const RowPlan& plan = task.plan[row];
  const StepRequest& request = task.step->request;
  SequenceRecord& record = table_.At(plan.slot);
  table_.Renew(plan.slot, now + options_.step_ttl);
  touched_.emplace_back(plan.slot, record.epoch);
  if (plan.action != RowPlan::Action::kFold) return;
  LayerCursor& cursor = record.layers[task.item.layer];
  cursor.step_id = request.step_id;
  cursor.step_position = cursor.position;
  cursor.step_tokens = request.tokens(row);
  cursor.step_layout = static_cast<uint8_t>(request.input_layout);
  cursor.position += request.tokens(row);
}

// Of the rows that have committed and were not released, in place of their last ones.
void Engine::KeepAnswers(const Task& task) {
  for (size_t row = 0; row < task.plan.size(); ++row) {
    if (task.Folds(row) && table_.InUse(task.plan[row].slot)) KeepAnswer(task, row);
  }
}

// Decode answers are in the backend's pool already; larger ones are copied while there is room.
void Engine::KeepAnswer(const Task& task, size_t row) {
  const StepRequest& request = task.step->request;
  const uint64_t epoch = table_.At(task.plan[row].slot).epoch;
  answers_.Erase(epoch, task.item.layer);
  const bool large = request.tokens(row) > static_cast<uint32_t>(options_.shape.max_decode_tokens);
  if (request.step_id == 0 || !large) return;
  const OutputRange out = OutputOf(task, row);
  const std::span<std::byte> kept = answers_.Put(epoch, task.item.layer, out.bytes);
  if (kept.empty()) return;
  if (task.output.data != nullptr) {
    InShares(kept.size(), [&](size_t begin, size_t end) {
      StreamCopy(kept.data() + begin, task.output.data + out.at + begin, end - begin);
      StreamFence();
    });
  } else if (!task.output.Read(out.at, kept)) {
    answers_.Erase(epoch, task.item.layer);
  }
}

// A stored answer that the device does not give back is a fault of its row.
void Engine::CopyReplays(Task& task) {
  if (device_lost_) return;
  for (size_t row = 0; row < task.plan.size(); ++row) {
    if (task.plan[row].action != RowPlan::Action::kReplay) continue;
    if (!CopyReplay(task, row)) task.faults[row] = RowFault::kDevice;
  }
}

bool Engine::CopyReplay(const Task& task, size_t row) {
  const OutputRange out = OutputOf(task, row);
  if (const auto kept = task.kept.find(row); kept != task.kept.end()) {
    return task.output.Write(out.at, kept->second->bytes());
  }
  const int32_t slot = task.plan[row].slot;
  if (task.output.data != nullptr) {
    return backend_->ReadAnswer(task.item.layer, slot, {task.output.data + out.at, out.bytes}).ok();
  }
  std::vector<std::byte> answer(out.bytes);
  return backend_->ReadAnswer(task.item.layer, slot, answer).ok() &&
         task.output.Write(out.at, answer);
}

Engine::OutputRange Engine::OutputOf(const Task& task, size_t row) const {
  const StepRequest& request = task.step->request;
  const size_t row_bytes = RowBytes(options_.shape, request.input_layout);
  const auto first = static_cast<size_t>(TokensBefore(request, {row, 0}));
  return {first * row_bytes, request.tokens(row) * row_bytes};
}

}  // namespace gdn
