// Runs steps and calls, as many batches at a time as the backend takes: one thread owns the
// backend, its pools and the slot table. Submit may be called from any thread; everything else
// belongs to the thread that calls Step. There is no clock inside: whoever drives it says what time
// it is. Start reading at Engine::Step.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "server/engine/batch_policy.h"
#include "server/engine/engine_observer.h"
#include "server/engine/mailbox.h"
#include "server/engine/outbox.h"
#include "server/engine/row_plan.h"
#include "server/engine/sequence_lines.h"
#include "server/engine/task.h"
#include "server/wire/step.h"
#include "state/answer_store.h"
#include "state/slot_table.h"

namespace gdn {

struct EngineOptions {
  std::vector<int> layers;  // N of model.layers.N, ascending; index i is the backend's layer i
  BackendShape shape;
  size_t max_queue_steps = 0;  // and as many calls, in as many rows and bytes
  size_t max_queue_rows = 0;
  size_t max_queue_bytes = 0;
  uint32_t prefill_chunk = 0;  // tokens of a prefill that run at once; 0: all
  size_t replay_bytes = 0;
  absl::Duration step_ttl;
  absl::Duration prefill_max_wait;
  uint64_t first_epoch = 1;  // not 0
  // Called once, on the engine's thread, when the device is lost for good.
  std::function<void()> on_device_lost;
  EngineObserver* observer = nullptr;  // outlives the engine; null: nobody looks
};

class Engine {
 public:
  // `backend` has its layers loaded and outlives the engine.
  Engine(EngineOptions options, Backend* backend);

  // Hands in a validated step. Where the queue is full, or the engine is closed or broken, the step
  // is refused at once on the calling thread. There too the input of a prefill that will run in
  // pieces is looked through for NaN and infinity, unless it is known_finite. It may also tell
  // another step's caller its answer: `done` is called on the engine's thread, or on one that is in
  // Submit or sends from the outbox.
  void Submit(const std::shared_ptr<Step>& step, absl::Time now);
  // Hands in a call, which is refused likewise.
  void Submit(const std::shared_ptr<Call>& call, absl::Time now);

  // Takes what has arrived, ends leases, refuses what nobody waits for any more; then runs a call,
  // or begins a batch where one may begin, and waits for the oldest in flight where no other could
  // begin. False where there was nothing to do.
  bool Step(absl::Time now);

  // From now on no sequence begins (DRAINING).
  void Drain() { draining_ = true; }
  // From now on nothing is taken; what is in flight ends, steps that wait are refused (DRAINING),
  // calls are run.
  void Close(absl::Time now);

  // Thread-safe facts.
  int slots_used() const { return slots_used_; }
  size_t waiting() const { return mailbox_.waiting(); }
  uint64_t steps_taken() const { return steps_taken_; }
  void Wait(absl::Time until) { mailbox_.Wait(until); }
  void Wake() { mailbox_.Wake(); }
  // Answers that wait to be sent, for who may send one. May outlive the engine, and is empty then.
  const std::shared_ptr<Outbox>& outbox() const { return outbox_; }
  // Whether Submit would take the step now: for who has work to do before it.
  bool HasRoom(const gdn::Step& step) const {
    return mailbox_.Room(step) == Mailbox::Result::kTaken;
  }

  // The hand that its thread lends while it looks for steps.
  SpareHand& hand() { return mailbox_.hand(); }
  // The type of the whole input of a step that Submit would look through, where it is of one: who
  // copies the input may look on the way.
  std::optional<DType> TypeToCheck(const gdn::Step& step) const;

  // For calls, on the engine's thread.
  SlotTable& table() { return table_; }
  void Release(int32_t slot);
  // The next moment at which Step has something to do by itself.
  absl::Time next_expiry() const { return table_.next_expiry(); }
  // The steps in flight, oldest batch first.
  std::vector<const gdn::Step*> in_flight() const;
  // The prefill of which some pieces have begun and others wait, or null.
  const gdn::Step* between_pieces() const { return begun_ ? begun_->step.get() : nullptr; }

 private:
  using Tasks = std::vector<std::shared_ptr<Task>>;
  // Bytes of a step's output.
  struct OutputRange {
    size_t at = 0;
    size_t bytes = 0;
  };
  // A batch, from when it is built until it has ended. What the backend sees of it stays in place.
  struct InFlight {
    Batch batch;
    FlyingItem item;  // for the policy
    std::vector<TaskPiece> pieces;
    std::vector<int64_t> offsets;
    std::vector<int32_t> slots;
    std::vector<uint8_t> has_initial_state;
    std::vector<uint8_t> keep_answer;
    std::vector<BatchPart> parts;
    std::vector<RowFault> faults;
  };

  void Refuse(gdn::Step& step, const Fault& fault);
  void Answer(const Task& task, Fault fault, StepAnswer answer);
  void RunCall(Call& call, absl::Time now);
  CutRules cut_rules() const;
  std::vector<InputTensor> TensorsOf(const StepRequest& request) const;
  void CheckInput(gdn::Step& step) const;

  // What waits.
  void TakeArrivals();
  void TakeStep(Task& task);
  void TakeCall(Task& task);
  void RenewTouched(absl::Time now);
  void ExpireLeases(absl::Time now);
  void DropUnwanted(absl::Time now);
  void Drop(Task& task);
  std::vector<size_t> DecideNext(absl::Time now);
  Tasks TakeFromQueue(const std::vector<size_t>& chosen);
  bool IsInFlight(SequenceKey key) const;
  SequenceKey KeyOfRow(const StepRequest& request, size_t row) const;
  int LayerIndex(uint32_t layer) const;

  // From there to the answer.
  void Run(const std::vector<size_t>& chosen, absl::Time now);
  void BeginSteps(Tasks tasks, absl::Time now);
  bool Prepare(Task& task, absl::Time now);
  void AddToBatch(InFlight& batch, const std::shared_ptr<Task>& task);
  BatchPart PartOf(const InFlight& batch, TaskPiece& piece) const;
  void Launch(InFlight& batch);
  void TellBegun(const TaskPiece& piece) const;
  void EndOldest(absl::Time now);
  void TakeFaults(const InFlight& batch, const TaskPiece& piece) const;
  bool IsLost(const Task& task) const;
  bool IsOver(const Task& task) const;
  void PutBack(std::shared_ptr<Task> task);
  void Withdraw(Task& task);
  void LoseDevice();
  void Finish(Task& task, absl::Time now);
  Fault Commit(Task& task, absl::Time now);
  void CopyReplays(Task& task);
  void CommitRow(const Task& task, size_t row, absl::Time now);
  void KeepAnswers(const Task& task);
  void KeepAnswer(const Task& task, size_t row);
  bool CopyReplay(const Task& task, size_t row);
  OutputRange OutputOf(const Task& task, size_t row) const;

  const EngineOptions options_;
  Backend* const backend_;
  const bool overlaps_;  // batches may be in flight side by side
  EngineObserver no_observer_;
  EngineObserver* const observer_;
  Mailbox mailbox_;
  const std::shared_ptr<Outbox> outbox_ = std::make_shared<Outbox>();
  SlotTable table_;
  AnswerStore answers_;
  Tasks queue_;          // in order of arrival
  SequenceLines lines_;  // of what is in the queue
  uint64_t next_serial_ = 0;
  Task* begun_ = nullptr;                              // in the queue, with pieces begun
  std::vector<std::pair<int32_t, uint64_t>> touched_;  // slot, epoch: leases to begin anew
  bool after_prefill_ = false;

  std::atomic<bool> draining_ = false;
  std::atomic<bool> device_lost_ = false;
  std::atomic<int> slots_used_ = 0;
  std::atomic<uint64_t> steps_taken_ = 0;

  std::deque<std::unique_ptr<InFlight>> in_flight_;  // oldest first

  // Kept between steps for their memory.
  std::vector<std::unique_ptr<InFlight>> spare_;
  std::vector<Arrival> arrivals_;
  std::vector<const QueueItem*> items_;
  std::vector<FlyingItem> in_flight_items_;
};

}  // namespace gdn
