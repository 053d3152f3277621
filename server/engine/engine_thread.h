// The thread that drives an engine by the system's clock.
#pragma once

#include <atomic>
#include <thread>

#include "absl/time/time.h"
#include "server/engine/engine.h"

namespace gdn {

class EngineThread {
 public:
  explicit EngineThread(Engine* engine);
  // Closes the engine and joins.
  ~EngineThread();

  // No sequence begins any more. Returns when nothing waits and either no sequence lives or none
  // was stepped for a while, so that a pass under way can go on; or after `timeout`.
  void Drain(absl::Duration timeout);

 private:
  void Loop();

  Engine* const engine_;
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

}  // namespace gdn
