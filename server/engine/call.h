// A call that is about sequences and not about tokens, on its way through the engine.
#pragma once

#include <atomic>
#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "server/wire/fault.h"

namespace gdn {

// Where a call stands among the steps: it runs once those that came before it and concern
// `request_ids` (or, with waits_for_all, all steps) are done. With holds_up, the steps that come
// after it and concern `request_ids` wait for it.
struct CallPlace {
  std::vector<std::string> request_ids;
  bool waits_for_all = false;
  bool holds_up = false;
};

// Exactly one of `run` and `refuse` is called, once: on the engine's thread, or the submitting one
// where the engine refuses it at once.
struct Call {
  CallPlace place;
  size_t bytes = 0;  // of its message
  absl::Time deadline = absl::InfiniteFuture();
  std::atomic<bool> cancelled = false;  // set by the transport; looked at until it runs
  std::function<void(absl::Time now)> run;
  std::function<void(const Fault&)> refuse;
};

}  // namespace gdn
