#include "server/metrics/engine_meter.h"

#include "absl/time/clock.h"
#include "server/metrics/elapsed.h"

namespace gdn {

uint64_t EngineMeter::SinceSubmitted(const Step& step) const {
  return NanosecondsBetween(step.submitted, now_);
}

void EngineMeter::StepBegins(const Step& step) {
  Of(step.kind).queued.Observe(SinceSubmitted(step));
}

void EngineMeter::StepEnds(const Step& step, const StepAnswer& answer) {
  Of(step.kind).duration.Observe(SinceSubmitted(step));
  if (answer.replayed_rows > 0) metrics_->replayed_rows.Add(answer.replayed_rows);
}

void EngineMeter::BatchBegins(StepKind kind, const Batch& batch) {
  StepNumbers& numbers = Of(kind);
  numbers.batch_rows.Observe(static_cast<uint64_t>(batch.rows()));
  numbers.batch_tokens.Observe(static_cast<uint64_t>(batch.tokens()));
  now_ = absl::Now();
  in_flight_.push_back({kind, now_});
}

void EngineMeter::BatchEnded() {
  const Begun begun = in_flight_.front();
  in_flight_.pop_front();
  now_ = absl::Now();
  Of(begun.kind).device.Observe(NanosecondsBetween(begun.time, now_));
}

}  // namespace gdn
