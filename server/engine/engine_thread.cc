#include "server/engine/engine_thread.h"

#include "absl/time/clock.h"

namespace gdn {

EngineThread::EngineThread(Engine* engine) : engine_(engine), thread_([this] { Loop(); }) {}

EngineThread::~EngineThread() {
  stop_ = true;
  engine_->Wake();
  thread_.join();
}

void EngineThread::Loop() {
  while (!stop_) {
    if (engine_->Step(absl::Now())) continue;
    // A lease has ended once its end has passed, not at it.
    engine_->Wait(engine_->next_expiry() + absl::Milliseconds(1));
  }
  engine_->Close(absl::Now());
}

void EngineThread::Drain(absl::Duration timeout) {
  constexpr absl::Duration kQuiet = absl::Milliseconds(500);
  constexpr absl::Duration kPoll = absl::Milliseconds(10);
  engine_->Drain();
  const absl::Time deadline = absl::Now() + timeout;
  absl::Time last_step = absl::Now();
  uint64_t steps = engine_->steps_taken();
  while (absl::Now() < deadline) {
    if (engine_->waiting() > 0 || engine_->steps_taken() != steps) {
      steps = engine_->steps_taken();
      last_step = absl::Now();
    } else if (engine_->slots_used() == 0 || absl::Now() - last_step >= kQuiet) {
      return;
    }
    absl::SleepFor(kPoll);
  }
}

}  // namespace gdn
