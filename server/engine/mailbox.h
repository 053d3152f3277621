// What the RPC threads hand to the engine: steps and calls in order of arrival, within bounds.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "server/wire/step.h"

namespace gdn {

// A call that is about sequences and not about tokens. It runs on the engine's thread once the
// steps that came before it and concern `request_ids` (or, with waits_for_all, all steps) are done.
// With holds_up, the steps that come after it and concern `request_ids` wait for it.
struct Call {
  std::vector<std::string> request_ids;
  bool waits_for_all = false;
  bool holds_up = false;
  std::function<void(absl::Time now)> run;
};

// One arrival: a step or a call.
struct Arrival {
  absl::Time time;
  std::shared_ptr<Step> step;  // null for a call
  Call call;
};

class Mailbox {
 public:
  Mailbox(size_t max_steps, size_t max_rows, size_t max_bytes)
      : max_steps_(max_steps), max_rows_(max_rows), max_bytes_(max_bytes) {}

  enum class Result : uint8_t { kTaken, kFull, kClosed };

  // kFull where the steps that wait, their rows and their bytes leave no room for this one. Calls
  // always fit, and a step where none waits.
  Result Put(Arrival arrival);
  // What Put would say of a step now: for who has work to do before it.
  Result Room(const Step& step) const;
  // From now on nothing is taken.
  void Close();
  // Moves all arrivals to the end of `arrivals`.
  void Take(std::vector<Arrival>* arrivals);
  // Gives back the room of a step that was taken and no longer waits. Takes no lock.
  void Done(const Step& step);
  // Steps that wait, taken or not.
  size_t waiting() const { return steps_; }
  // Returns at the next Put or Wake, at `until`, or at once where something has arrived. Where
  // something was taken since it last slept it looks for a while before it sleeps: the steps of a
  // pass follow one another by microseconds. For the thread that takes.
  void Wait(absl::Time until);
  void Wake();

 private:
  static size_t BytesOf(const Step& step);
  Result RoomLocked(const Step& step) const;

  const size_t max_steps_;
  const size_t max_rows_;
  const size_t max_bytes_;
  mutable std::mutex mutex_;
  std::condition_variable arrived_;
  std::vector<Arrival> arrivals_;
  // Grow under the lock alone.
  std::atomic<size_t> steps_ = 0;
  std::atomic<size_t> rows_ = 0;
  std::atomic<size_t> bytes_ = 0;
  bool woken_ = false;
  bool closed_ = false;
  std::atomic<bool> pending_ =
      false;           // something has arrived or woken_: for looks without the lock
  bool busy_ = false;  // something was taken since the last sleep
};

}  // namespace gdn
