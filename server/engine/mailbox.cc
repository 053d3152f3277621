#include "server/engine/mailbox.h"

#include <algorithm>
#include <chrono>
#include <iterator>
#include <thread>
#include <utility>

#include "absl/time/clock.h"
#include "server/engine/spin.h"

namespace gdn {

// A row costs room even where it brings no bytes (0 tokens, synthetic input).
size_t Mailbox::BytesOf(const Step& step) {
  constexpr size_t kRowBytes = 64;
  return step.request.input_bytes() + kRowBytes * step.request.rows();
}

Mailbox::Result Mailbox::RoomLocked(const Step& step) const {
  if (closed_) return Result::kClosed;
  const bool fits = steps_ < max_steps_ && rows_ + step.request.rows() <= max_rows_ &&
                    bytes_ + BytesOf(step) <= max_bytes_;
  return steps_ == 0 || fits ? Result::kTaken : Result::kFull;
}

Mailbox::Result Mailbox::Room(const Step& step) const {
  const std::lock_guard lock(mutex_);
  return RoomLocked(step);
}

Mailbox::Result Mailbox::Put(Arrival arrival) {
  {
    const std::lock_guard lock(mutex_);
    if (closed_) return Result::kClosed;
    if (arrival.step != nullptr) {
      if (const Result room = RoomLocked(*arrival.step); room != Result::kTaken) return room;
      ++steps_;
      rows_ += arrival.step->request.rows();
      bytes_ += BytesOf(*arrival.step);
    }
    arrivals_.push_back(std::move(arrival));
    pending_ = true;
  }
  arrived_.notify_one();
  return Result::kTaken;
}

void Mailbox::Close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
}

void Mailbox::Take(std::vector<Arrival>* arrivals) {
  const std::lock_guard lock(mutex_);
  busy_ |= !arrivals_.empty();
  arrivals->insert(arrivals->end(), std::make_move_iterator(arrivals_.begin()),
                   std::make_move_iterator(arrivals_.end()));
  arrivals_.clear();
  pending_ = woken_;
}

void Mailbox::Done(const Step& step) {
  --steps_;
  rows_ -= step.request.rows();
  bytes_ -= BytesOf(step);
}

void Mailbox::Wait(absl::Time until) {
  // A wait is bounded so that the arithmetic of the system's clock cannot overflow.
  constexpr absl::Duration kLongest = absl::Hours(1);
  const absl::Time limit = std::min(until, absl::Now() + kLongest);
  if (std::exchange(busy_, false) && !SpinUntil([this] { return pending_.load(); })) {
    std::this_thread::yield();  // where nobody spins, to who may be about to bring something
  }
  std::unique_lock lock(mutex_);
  arrived_.wait_until(lock, absl::ToChronoTime(limit),
                      [this] { return !arrivals_.empty() || woken_; });
  woken_ = false;
  pending_ = !arrivals_.empty();
}

void Mailbox::Wake() {
  {
    const std::lock_guard lock(mutex_);
    woken_ = true;
    pending_ = true;
  }
  arrived_.notify_one();
}

}  // namespace gdn
