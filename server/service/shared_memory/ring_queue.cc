#include "server/service/shared_memory/ring_queue.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <limits>

namespace gdn {
namespace {

// Of a message in its queue, its length before it.
constexpr uint64_t kLengthBytes = sizeof(uint64_t);

// REQUIRES a length within a queue.
constexpr uint64_t RecordBytes(uint64_t length) { return kLengthBytes + (length + 7) / 8 * 8; }

}  // namespace

void RingBell::Ring(uint32_t what) {
  // Changes nothing, but is ordered with the other side's exchange: one of the two sees what the
  // other has done.
  if ((sleeps_for.fetch_or(0, std::memory_order_acq_rel) & what) != 0) Wake();
}

void RingBell::Wake() {
  rung.fetch_add(1, std::memory_order_release);
  syscall(SYS_futex, &rung, FUTEX_WAKE, std::numeric_limits<int>::max(), nullptr, nullptr, 0);
}

void RingBell::Wait(uint32_t seen, std::chrono::milliseconds longest) {
  timespec limit = {};
  limit.tv_sec = static_cast<time_t>(longest.count() / 1000);
  limit.tv_nsec = static_cast<long>(longest.count() % 1000) * 1'000'000;
  syscall(SYS_futex, &rung, FUTEX_WAIT, seen, &limit, nullptr, 0);
}

void RingBytes::CopyIn(uint64_t at, const void* from, size_t n) const {
  const size_t begin = at & (size - 1);
  const size_t first = std::min(n, size - begin);
  std::memcpy(data + begin, from, first);
  std::memcpy(data, static_cast<const std::byte*>(from) + first, n - first);
}

void RingBytes::CopyOut(uint64_t at, void* to, size_t n) const {
  const size_t begin = at & (size - 1);
  const size_t first = std::min(n, size - begin);
  std::memcpy(to, data + begin, first);
  std::memcpy(static_cast<std::byte*>(to) + first, data, n - first);
}

RingResult RingReader::Read(std::string* message) {
  const uint64_t there = written_->load(std::memory_order_acquire) - at_;
  if (there == 0) return RingResult::kNotYet;
  if (there < kLengthBytes || there > bytes_.size) return RingResult::kBroken;
  uint64_t length;
  bytes_.CopyOut(at_, &length, sizeof length);
  if (length > bytes_.size || RecordBytes(length) > there) return RingResult::kBroken;
  message->resize(length);
  bytes_.CopyOut(at_ + kLengthBytes, message->data(), length);
  at_ += RecordBytes(length);
  read_->store(at_, std::memory_order_release);
  return RingResult::kDone;
}

bool RingWriter::HasRoom(std::string_view message) const {
  return used() + RecordBytes(message.size()) <= bytes_.size;
}

RingResult RingWriter::Write(std::string_view message) {
  if (used() > bytes_.size) return RingResult::kBroken;
  if (!HasRoom(message)) return RingResult::kNotYet;
  const uint64_t length = message.size();
  bytes_.CopyIn(at_, &length, sizeof length);
  bytes_.CopyIn(at_ + kLengthBytes, message.data(), message.size());
  at_ += RecordBytes(length);
  written_->store(at_, std::memory_order_release);
  return RingResult::kDone;
}

}  // namespace gdn
