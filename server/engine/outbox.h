// Answers on their way from the engine to those who wait. To send one takes longer than to make it,
// so whoever is about to hand in a step may send one too. Thread-safe.
#pragma once

#include <atomic>
#include <deque>
#include <memory>
#include <mutex>

#include "server/wire/step.h"

namespace gdn {

class Outbox {
 public:
  struct Letter {
    std::shared_ptr<Step> step;
    Fault fault;
    StepAnswer answer;
  };

  void Put(Letter letter);
  // Calls `done` of the oldest; false where none is left. Takes no lock then.
  bool SendOne();
  void SendAll();

 private:
  std::mutex mutex_;
  std::deque<Letter> letters_;
  std::atomic<size_t> count_ = 0;  // of letters_
};

}  // namespace gdn
