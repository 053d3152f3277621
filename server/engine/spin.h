// How long a thread looks for work before it sleeps, where somebody waits for microseconds.
#pragma once

#include <chrono>
#include <thread>

namespace gdn {

// Longer than a decode step, and than what lies between the steps of a pass. Where there are few
// cores nobody spins: the one that is looked for would wait for the one that looks.
inline std::chrono::microseconds SpinTime() {
  static const bool cores_to_spare = std::thread::hardware_concurrency() >= 4;
  return std::chrono::microseconds(cores_to_spare ? 1000 : 0);
}

// Looks until `found`, SpinTime() at most; whether it was found.
template <typename Found>
bool SpinUntil(const Found& found) {
  constexpr int kLooksAClock = 32;
  const auto end = std::chrono::steady_clock::now() + SpinTime();
  do {
    for (int i = 0; i < kLooksAClock; ++i) {
      if (found()) return true;
#if defined(__x86_64__)
      __builtin_ia32_pause();
#endif
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

}  // namespace gdn
