// Counts and times what an engine does.
#pragma once

#include <deque>

#include "absl/time/time.h"
#include "server/engine/engine_observer.h"
#include "server/metrics/metrics.h"

namespace gdn {

class EngineMeter final : public EngineObserver {
 public:
  // `metrics` outlives it. The engine that it observes is driven by the system's clock.
  explicit EngineMeter(Metrics* metrics) : metrics_(metrics) {}

  void TimeIs(absl::Time now) override { now_ = now; }
  void StepBegins(const Step& step) override;
  void StepEnds(const Step& step, const StepAnswer& answer) override;
  void BatchBegins(StepKind kind, const Batch& batch) override;
  void BatchEnded() override;
  void LeaseExpired() override { metrics_->leases_expired.Add(); }

 private:
  struct Begun {
    StepKind kind;
    absl::Time time;
  };

  StepNumbers& Of(StepKind kind) { return metrics_->steps[static_cast<size_t>(kind)]; }

  uint64_t SinceSubmitted(const Step& step) const;

  Metrics* const metrics_;
  absl::Time now_;  // as of the last that was told: read once a batch, not once a step of it
  std::deque<Begun> in_flight_;  // oldest first
};

}  // namespace gdn
