// The parts of gdn.v1.Ring as the server sees them. Whatever the caller writes there, nothing is
// read or written outside of the queues.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace gdn {

// What a side sleeps for.
inline constexpr uint32_t kToRead = 1;
inline constexpr uint32_t kToWrite = 2;

// One side's bell, and what it sleeps for (0: it is awake).
struct RingBell {
  std::atomic<uint32_t> rung = 0;
  std::atomic<uint32_t> sleeps_for = 0;

  // Rings if its side sleeps for this, which has been made possible.
  void Ring(uint32_t what);
  // Sleeps until it is rung, for `longest` at most, unless `ready` once that is announced.
  template <typename Ready>
  void Sleep(uint32_t what, std::chrono::milliseconds longest, const Ready& ready);
  void Wake();

 private:
  void Wait(uint32_t seen, std::chrono::milliseconds longest);
};

// The words before the queues, each side's on cache lines of its own.
struct RingWords {
  struct alignas(64) Word {
    std::atomic<uint64_t> value = 0;
  };
  Word requests_written;
  Word requests_read;
  Word responses_written;
  Word responses_read;
  alignas(64) RingBell server;
  alignas(64) RingBell caller;
};
inline constexpr size_t kRingWordsBytes = 512;
static_assert(sizeof(RingWords) <= kRingWordsBytes && offsetof(RingWords, server) == 256 &&
              offsetof(RingWords, caller) == 320 && sizeof(RingBell) == 8 &&
              std::atomic<uint64_t>::is_always_lock_free);

// Where one queue lies; its size is a power of two.
struct RingBytes {
  std::byte* data = nullptr;
  size_t size = 0;

  void CopyIn(uint64_t at, const void* from, size_t n) const;
  void CopyOut(uint64_t at, void* to, size_t n) const;
};

enum class RingResult : uint8_t {
  kDone,
  kNotYet,  // there is nothing to read, or no room to write
  kBroken,  // what the caller wrote makes no sense
};

class RingReader {
 public:
  RingReader(RingBytes bytes, const std::atomic<uint64_t>* written, std::atomic<uint64_t>* read)
      : bytes_(bytes), written_(written), read_(read) {}

  bool Empty() const { return written_->load(std::memory_order_acquire) == at_; }
  // Moves the next message out of the ring.
  RingResult Read(std::string* message);

 private:
  RingBytes bytes_;
  const std::atomic<uint64_t>* written_;
  std::atomic<uint64_t>* read_;
  uint64_t at_ = 0;
};

class RingWriter {
 public:
  RingWriter(RingBytes bytes, std::atomic<uint64_t>* written, const std::atomic<uint64_t>* read)
      : bytes_(bytes), written_(written), read_(read) {}

  bool HasRoom(std::string_view message) const;
  RingResult Write(std::string_view message);

 private:
  uint64_t used() const { return at_ - read_->load(std::memory_order_acquire); }

  RingBytes bytes_;
  std::atomic<uint64_t>* written_;
  const std::atomic<uint64_t>* read_;
  uint64_t at_ = 0;
};

template <typename Ready>
void RingBell::Sleep(uint32_t what, std::chrono::milliseconds longest, const Ready& ready) {
  const uint32_t seen = rung.load(std::memory_order_acquire);
  sleeps_for.exchange(what, std::memory_order_acq_rel);
  if (!ready()) Wait(seen, longest);
  sleeps_for.store(0, std::memory_order_relaxed);
}

}  // namespace gdn
