// What the processes of planes_bench tell each other: that of the servers and that of the callers.
#pragma once

#include <sys/mman.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>
#include <string_view>

namespace gdn {

[[noreturn]] inline void Fail(const std::string& why) {
  std::fprintf(stderr, "planes_bench: %s\n", why.c_str());
  std::exit(1);
}

// What is measured beside a Decode of one row: one of some and one of many, and a Prefill of so
// many tokens.
inline constexpr int64_t kSomeRows = 32;
inline constexpr int64_t kMostRows = 128;
inline constexpr int64_t kPrompt = 8192;

// µs of a step of `rows` rows of `tokens` together, the median of many.
struct StepTimes {
  double device = 0;      // as TimeOnDevice says, with the copies
  double kernels = 0;     // without them
  double in_process = 0;  // by the backend called in process with tensors in ordinary memory
};

using AddressText = std::array<char, 128>;

inline void Write(std::string_view text, AddressText* to) {
  if (text.size() >= to->size()) Fail("a long address");
  std::memcpy(to->data(), text.data(), text.size());
  (*to)[text.size()] = '\0';
}

// In memory of both. The atomic ones may change at any time, the others before the servers are
// ready.
struct Board {
  AddressText echo = {}, echo_tcp = {}, service = {}, service_tcp = {};
  StepTimes one, some, most, prompt;      // on the device
  std::atomic<double> backend_us = 0;     // that it has had something to do, until this is taken
  std::atomic<int64_t> echo_late_ns = 0;  // by which the late echo is late

  // REQUIRES that no process that is to see it has been forked.
  static Board* Make() {
    void* memory =
        mmap(nullptr, sizeof(Board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) Fail("no memory");
    return new (memory) Board;
  }
};

}  // namespace gdn
