// What the engine tells of its work as it goes: for metrics. It says the times that it was told
// itself; who wants others brings a clock.
#pragma once

#include "kernels/batch.h"
#include "server/wire/step.h"

namespace gdn {

// Called on the engine's thread. What is not overridden is not looked at.
class EngineObserver {
 public:
  virtual ~EngineObserver() = default;

  // Engine::Step begins, at this time.
  virtual void TimeIs(absl::Time /*now*/) {}
  // The step leaves the queue: its rows are resolved next.
  virtual void StepBegins(const Step& /*step*/) {}
  // A step that had been taken is answered next, begun or not.
  virtual void StepEnds(const Step& /*step*/, const StepAnswer& /*answer*/) {}
  // The batch goes to Backend::Begin next.
  virtual void BatchBegins(StepKind /*kind*/, const Batch& /*batch*/) {}
  // Backend::End has returned for the oldest batch that began and did not end.
  virtual void BatchEnded() {}
  virtual void LeaseExpired() {}
};

}  // namespace gdn
