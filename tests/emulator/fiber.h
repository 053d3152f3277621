// A thread of execution with a stack of its own, resumed and suspended by hand.
#pragma once

#include <setjmp.h>

#include <functional>

namespace gdn::emulator {

class Fiber {
 public:
  Fiber() = default;
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // `body` begins with the first Resume; it must not throw.
  void Start(std::function<void()> body);
  // Runs it until it suspends itself or ends.
  void Resume();
  // Of the fiber that runs: back to who resumed it.
  void Suspend();
  bool ended() const { return ended_; }

 private:
  static void Entry();

  jmp_buf here_;
  jmp_buf caller_;
  std::function<void()> body_;
  void* stack_ = nullptr;
  bool started_ = false;
  bool ended_ = false;
};

}  // namespace gdn::emulator
