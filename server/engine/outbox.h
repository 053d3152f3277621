// Answers on their way from the engine to those who wait. To send one takes longer than to make it,
// so whoever is about to hand in a step, or has seen its own answer go, may send one too, but none
// that is Step::in_order: two threads that send pass each other. Thread-safe.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

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
  // Calls `done` of the oldest. False where none is left, without a lock then, or where it is the
  // engine's to send.
  bool SendOne();
  // By the engine's thread.
  void SendAll();

 private:
  // What is to be sent; no step where there is nothing.
  Letter TakeOldest(bool any);
  static void Send(Letter letter);

  std::mutex mutex_;
  std::vector<Letter> letters_;  // those before next_ are taken
  size_t next_ = 0;
  std::atomic<size_t> count_ = 0;  // of those not taken
};

}  // namespace gdn
