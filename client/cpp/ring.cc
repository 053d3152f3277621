#include "client/cpp/ring.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstring>
#include <ctime>

namespace gdn::client {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kWordsBytes = 512;
constexpr uint32_t kToRead = 1;
constexpr uint32_t kToWrite = 2;
constexpr std::chrono::microseconds kSpin{1000};

struct Bell {
  std::atomic<uint32_t> rung;
  std::atomic<uint32_t> sleeps_for;

  // Rings if its side sleeps for this. Changes nothing else, but is ordered with that side's
  // exchange: one of the two sees what the other has done.
  void Ring(uint32_t what) {
    if ((sleeps_for.fetch_or(0, std::memory_order_acq_rel) & what) != 0) Wake();
  }
  void Wake() {
    ++rung;
    syscall(SYS_futex, &rung, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
  }
};

uint64_t RecordBytes(uint64_t length) { return sizeof(uint64_t) + (length + 7) / 8 * 8; }

}  // namespace

struct Ring::Words {
  alignas(64) std::atomic<uint64_t> requests_written;
  alignas(64) std::atomic<uint64_t> requests_read;
  alignas(64) std::atomic<uint64_t> responses_written;
  alignas(64) std::atomic<uint64_t> responses_read;
  alignas(64) Bell server;
  alignas(64) Bell caller;
};

void Ring::Queue::CopyIn(uint64_t at, const void* from, size_t n) const {
  const size_t begin = at & (size - 1);
  const size_t first = std::min(n, size - begin);
  std::memcpy(data + begin, from, first);
  std::memcpy(data, static_cast<const std::byte*>(from) + first, n - first);
}

void Ring::Queue::CopyOut(uint64_t at, void* to, size_t n) const {
  const size_t begin = at & (size - 1);
  const size_t first = std::min(n, size - begin);
  std::memcpy(to, data + begin, first);
  std::memcpy(static_cast<std::byte*>(to) + first, data, n - first);
}

size_t Ring::BytesOf(size_t request_bytes, size_t response_bytes) {
  return kWordsBytes + request_bytes + response_bytes;
}

Ring::Ring(const std::shared_ptr<grpc::Channel>& channel, const Region& region,
           size_t request_bytes, size_t response_bytes)
    : stub_(v1::SharedMemoryService::NewStub(channel)),
      words_(reinterpret_cast<Words*>(region.data())),
      requests_{region.data() + kWordsBytes, request_bytes},
      responses_{requests_.data + request_bytes, response_bytes} {}

Error Ring::Open(const std::shared_ptr<grpc::Channel>& channel, const Region& region,
                 size_t request_bytes, size_t response_bytes, std::unique_ptr<Ring>* ring) {
  std::memset(region.data(), 0, kWordsBytes);
  std::unique_ptr<Ring> opened(new Ring(channel, region, request_bytes, response_bytes));
  v1::ServeRingRequest request;
  request.mutable_ring()->set_region(region.name());
  request.mutable_ring()->set_request_bytes(request_bytes);
  request.mutable_ring()->set_response_bytes(response_bytes);
  opened->call_ = opened->stub_->ServeRing(&opened->context_, request);
  v1::ServeRingResponse served;
  if (!opened->call_->Read(&served)) return DecodeError(opened->call_->Finish());
  opened->watcher_ = std::thread([ring = opened.get()] { ring->Watch(); });
  *ring = std::move(opened);
  return {};
}

Ring::~Ring() {
  context_.TryCancel();
  if (watcher_.joinable()) watcher_.join();
}

void Ring::Watch() {
  v1::ServeRingResponse none;
  while (call_->Read(&none)) {
  }
  end_ = DecodeError(call_->Finish());
  over_ = true;
  words_->caller.Wake();
}

Error Ring::EndOf() {
  if (watcher_.joinable()) watcher_.join();
  return end_;
}

bool Ring::Post(std::string_view request) {
  const uint64_t read = words_->requests_read.load(std::memory_order_acquire);
  if (requests_.at - read + RecordBytes(request.size()) > requests_.size) return false;
  const uint64_t length = request.size();
  requests_.CopyIn(requests_.at, &length, sizeof length);
  requests_.CopyIn(requests_.at + sizeof length, request.data(), request.size());
  requests_.at += RecordBytes(length);
  words_->requests_written.store(requests_.at, std::memory_order_release);
  words_->server.Ring(kToRead);
  return true;
}

bool Ring::TakeNext(std::string* response) {
  if (words_->responses_written.load(std::memory_order_acquire) == responses_.at) return false;
  uint64_t length;
  responses_.CopyOut(responses_.at, &length, sizeof length);
  response->resize(length);
  responses_.CopyOut(responses_.at + sizeof length, response->data(), length);
  responses_.at += RecordBytes(length);
  words_->responses_read.store(responses_.at, std::memory_order_release);
  words_->server.Ring(kToWrite);
  return true;
}

bool Ring::Receive(std::string* response, std::chrono::milliseconds timeout) {
  const Clock::time_point begin = Clock::now();
  const bool spin = std::thread::hardware_concurrency() >= 4;
  for (;;) {
    if (TakeNext(response)) return true;
    const Clock::duration waited = Clock::now() - begin;
    if (over_ || waited >= timeout) return false;
    if (spin && waited < kSpin) continue;
    Bell& bell = words_->caller;
    const uint32_t seen = bell.rung.load(std::memory_order_acquire);
    bell.sleeps_for.exchange(kToRead, std::memory_order_acq_rel);
    const auto left = std::chrono::duration_cast<std::chrono::nanoseconds>(timeout - waited);
    const timespec limit = {static_cast<time_t>(left.count() / 1'000'000'000),
                            static_cast<long>(left.count() % 1'000'000'000)};
    if (words_->responses_written.load(std::memory_order_acquire) == responses_.at && !over_) {
      syscall(SYS_futex, &bell.rung, FUTEX_WAIT, seen, &limit, nullptr, 0);
    }
    bell.sleeps_for.store(0, std::memory_order_relaxed);
  }
}

}  // namespace gdn::client
