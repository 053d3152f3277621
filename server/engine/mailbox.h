// What the RPC threads hand to the engine: steps and calls in order of arrival, within bounds.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "absl/time/time.h"
#include "server/engine/call.h"
#include "server/engine/spare_hand.h"
#include "server/wire/step.h"

namespace gdn {

// One arrival: a step or a call; the other one is null.
struct Arrival {
  absl::Time time;
  std::shared_ptr<Step> step;
  std::shared_ptr<Call> call;
};

class Mailbox {
 public:
  // What may wait of the steps, and again of the calls: they take no room from one another, so that
  // under too many steps sequences can still be released.
  Mailbox(size_t max_count, size_t max_rows, size_t max_bytes)
      : most_{max_count, max_rows, max_bytes} {}

  enum class Result : uint8_t { kTaken, kFull, kClosed };

  // kFull where the steps that wait, their rows and their bytes leave no room for this one, or the
  // calls, their ids and their bytes for this call. One always fits where none waits.
  Result Put(Arrival arrival);
  // What Put would say of a step now: for who has work to do before it.
  Result Room(const Step& step) const;
  // From now on nothing is taken.
  void Close();
  // Moves all arrivals to the end of `arrivals`.
  void Take(std::vector<Arrival>* arrivals);
  // Gives back the room of a step or call that was taken and no longer waits. Takes no lock.
  void Done(const Step& step);
  void Done(const Call& call);
  // Steps that wait, taken or not.
  size_t waiting() const { return steps_.count; }
  // Returns at the next Put or Wake, at `until`, or at once where something has arrived. Where
  // something was taken since it last slept it looks for a while before it sleeps: the steps of a
  // pass follow one another by microseconds. Meanwhile it is a hand for whoever brings one. For the
  // thread that takes.
  void Wait(absl::Time until);
  void Wake();
  SpareHand& hand() { return hand_; }

 private:
  // What waits, or comes.
  struct Load {
    size_t count = 0;
    size_t rows = 0;  // of steps; of calls, ids
    size_t bytes = 0;
  };
  // Grows under the lock alone.
  struct Waiting {
    std::atomic<size_t> count = 0;
    std::atomic<size_t> rows = 0;
    std::atomic<size_t> bytes = 0;
  };
  static Load LoadOf(const Step& step);
  static Load LoadOf(const Call& call);
  Result RoomLocked(const Waiting& waiting, const Load& more) const;
  Result AddLocked(const Load& more, Waiting* waiting) const;
  static void Subtract(const Load& less, Waiting* waiting);

  const Load most_;
  mutable std::mutex mutex_;
  std::condition_variable arrived_;
  std::vector<Arrival> arrivals_;
  Waiting steps_;
  Waiting calls_;
  bool woken_ = false;
  bool closed_ = false;
  std::atomic<bool> pending_ =
      false;           // something has arrived or woken_: for looks without the lock
  bool busy_ = false;  // something was taken since the last sleep
  SpareHand hand_;
};

}  // namespace gdn
