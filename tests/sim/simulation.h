// Steps, calls, cancels and passing time on an engine over a fake backend, event by event, and
// every answer judged by the mirror. What goes wrong fails the test.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "server/engine/engine.h"
#include "tests/sim/choices.h"
#include "tests/sim/mirror.h"
#include "tests/sim/traffic.h"
#include "tests/testing/fake_backend.h"

namespace gdn::test {

class Simulation {
 public:
  // `choices` outlives it. `depth`: of the backend.
  Simulation(Choices* choices, int depth, uint64_t first_epoch);

  // Something arrives, is cancelled, or the engine has a turn.
  void Event();
  // Turns until nothing waits.
  void Finish();
  void Drain();

  // Of answers, by what they said; and of other things worth counting.
  const std::map<std::string, int>& counts() const { return counts_; }
  // Batches that began beside as many.
  int64_t overlaps(size_t most) const;

 private:
  void SendStep();
  void SendCall();
  void SendManyCalls();
  // What was sent is refused now, unless it `fits`.
  void CheckArrival(uint64_t serial, bool fits);
  Reply RunCall(const CallSpec& spec, absl::Time now);
  void Cancel();
  void Turn();
  void Answered(Reply reply);
  // Of an unanswered step; 0 for none.
  uint64_t SerialOf(const Step* step) const;

  Choices* const choices_;
  Traffic traffic_;
  FakeBackend backend_;
  Engine engine_;
  Mirror mirror_;
  absl::Time now_ = absl::UnixEpoch() + absl::Hours(1);
  uint64_t next_serial_ = 1;
  std::map<uint64_t, std::shared_ptr<Step>> steps_;  // unanswered
  std::map<uint64_t, std::shared_ptr<Call>> calls_;
  std::vector<Reply> replies_;  // since the last round
  std::map<std::string, int> counts_;
};

}  // namespace gdn::test
