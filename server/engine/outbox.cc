#include "server/engine/outbox.h"

#include <utility>

namespace gdn {

void Outbox::Put(Letter letter) {
  const std::lock_guard lock(mutex_);
  letters_.push_back(std::move(letter));
  ++count_;
}

Outbox::Letter Outbox::TakeOldest(bool any) {
  if (count_ == 0) return {};
  const std::lock_guard lock(mutex_);
  if (count_ == 0 || (!any && letters_[next_].step->in_order)) return {};
  Letter letter = std::move(letters_[next_++]);
  --count_;
  if (count_ > 0) return letter;
  letters_.clear();
  next_ = 0;
  return letter;
}

void Outbox::Send(Letter letter) {
  letter.step->done(letter.fault, std::move(letter.answer));
  // Not with the step itself, which may wait until its answer has reached the caller.
  letter.step->message = nullptr;
}

bool Outbox::SendOne() {
  Letter letter = TakeOldest(/*any=*/false);
  if (letter.step == nullptr) return false;
  Send(std::move(letter));
  return true;
}

void Outbox::SendAll() {
  for (Letter letter = TakeOldest(/*any=*/true); letter.step != nullptr;
       letter = TakeOldest(/*any=*/true)) {
    Send(std::move(letter));
  }
}

}  // namespace gdn
