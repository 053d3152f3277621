#include "tests/emulator/fiber.h"

#include <sys/mman.h>
#include <ucontext.h>

#include <utility>
#include <vector>

namespace gdn::emulator {
namespace {

constexpr size_t kStackBytes = 128 << 10;

Fiber* starting = nullptr;
std::vector<void*> spare_stacks;

void* TakeStack() {
  if (spare_stacks.empty()) {
    return mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  }
  void* stack = spare_stacks.back();
  spare_stacks.pop_back();
  return stack;
}

}  // namespace

Fiber::~Fiber() {
  if (stack_ != nullptr) spare_stacks.push_back(stack_);
}

void Fiber::Start(std::function<void()> body) { body_ = std::move(body); }

// The stack is entered once by a context; from then on by jumps, which make no system call.
void Fiber::Resume() {
  if (_setjmp(caller_) != 0) return;
  if (started_) _longjmp(here_, 1);
  started_ = true;
  stack_ = TakeStack();
  ucontext_t context;
  getcontext(&context);
  context.uc_stack.ss_sp = stack_;
  context.uc_stack.ss_size = kStackBytes;
  context.uc_link = nullptr;
  makecontext(&context, &Fiber::Entry, 0);
  starting = this;
  setcontext(&context);
}

void Fiber::Entry() {
  Fiber* fiber = starting;
  fiber->body_();
  fiber->ended_ = true;
  _longjmp(fiber->caller_, 1);
}

void Fiber::Suspend() {
  if (_setjmp(here_) == 0) _longjmp(caller_, 1);
}

}  // namespace gdn::emulator
