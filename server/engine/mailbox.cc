#include "server/engine/mailbox.h"

#include <algorithm>
#include <chrono>
#include <iterator>
#include <thread>
#include <utility>

#include "absl/time/clock.h"
#include "server/engine/spin.h"

namespace gdn {
namespace {

// A row costs room even where it brings no bytes (0 tokens, synthetic input).
constexpr size_t kRowBytes = 64;

}  // namespace

Mailbox::Load Mailbox::LoadOf(const Step& step) {
  const size_t rows = step.request.rows();
  return {1, rows, step.request.input_bytes() + kRowBytes * rows};
}

Mailbox::Load Mailbox::LoadOf(const Call& call) {
  const size_t ids = call.place.request_ids.size();
  return {1, ids, call.bytes + kRowBytes * ids};
}

Mailbox::Result Mailbox::RoomLocked(const Waiting& waiting, const Load& more) const {
  if (closed_) return Result::kClosed;
  const bool fits = waiting.count < most_.count && waiting.rows + more.rows <= most_.rows &&
                    waiting.bytes + more.bytes <= most_.bytes;
  return waiting.count == 0 || fits ? Result::kTaken : Result::kFull;
}

Mailbox::Result Mailbox::AddLocked(const Load& more, Waiting* waiting) const {
  const Result room = RoomLocked(*waiting, more);
  if (room != Result::kTaken) return room;
  waiting->count += more.count;
  waiting->rows += more.rows;
  waiting->bytes += more.bytes;
  return room;
}

Mailbox::Result Mailbox::Room(const Step& step) const {
  const std::lock_guard lock(mutex_);
  return RoomLocked(steps_, LoadOf(step));
}

Mailbox::Result Mailbox::Put(Arrival arrival) {
  {
    const std::lock_guard lock(mutex_);
    const Result room = arrival.step != nullptr ? AddLocked(LoadOf(*arrival.step), &steps_)
                                                : AddLocked(LoadOf(*arrival.call), &calls_);
    if (room != Result::kTaken) return room;
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

void Mailbox::Done(const Step& step) { Subtract(LoadOf(step), &steps_); }

void Mailbox::Done(const Call& call) { Subtract(LoadOf(call), &calls_); }

void Mailbox::Subtract(const Load& less, Waiting* waiting) {
  waiting->count -= less.count;
  waiting->rows -= less.rows;
  waiting->bytes -= less.bytes;
}

void Mailbox::Wait(absl::Time until) {
  // A wait is bounded so that the arithmetic of the system's clock cannot overflow.
  constexpr absl::Duration kLongest = absl::Hours(1);
  const absl::Time limit = std::min(until, absl::Now() + kLongest);
  const auto found = [this] { return pending_.load(); };
  const auto look = [&] {
    hand_.Help(found);
    return found();
  };
  if (std::exchange(busy_, false) && !SpinUntil(look)) {
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
