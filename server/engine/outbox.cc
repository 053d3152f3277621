#include "server/engine/outbox.h"

#include <utility>

namespace gdn {

void Outbox::Put(Letter letter) {
  const std::lock_guard lock(mutex_);
  letters_.push_back(std::move(letter));
  ++count_;
}

bool Outbox::SendOne() {
  if (count_ == 0) return false;
  Letter letter;
  {
    const std::lock_guard lock(mutex_);
    if (letters_.empty()) return false;
    letter = std::move(letters_.front());
    letters_.pop_front();
    --count_;
  }
  letter.step->done(letter.fault, std::move(letter.answer));
  // Not with the step itself, which may wait until its answer has reached the caller.
  letter.step->message = nullptr;
  return true;
}

void Outbox::SendAll() {
  while (SendOne()) {
  }
}

}  // namespace gdn
