// Work on many bytes by several threads, where they are so many that it pays to begin some.
#pragma once

#include <algorithm>
#include <cstddef>
#include <future>
#include <thread>
#include <vector>

namespace gdn {

// Calls work(begin, end) for ranges that together are [0, size) and begin at multiples of 4 KiB;
// returns once all is done. A quarter of the cores work at most: others are called, too.
template <typename Work>
void InShares(size_t size, const Work& work) {
  constexpr size_t kLeast = size_t{4} << 20;
  constexpr size_t kUnit = 4096;
  const size_t most = std::max<size_t>(std::thread::hardware_concurrency() / 4, 1);
  const size_t shares = std::clamp<size_t>(size / kLeast, 1, most);
  const size_t share = (size / shares + kUnit - 1) / kUnit * kUnit;
  std::vector<std::future<void>> others;
  for (size_t i = 1; i < shares; ++i) {
    // Where no thread is to be had it is done by this one, at the end.
    others.push_back(
        std::async([&work, size, share, i] { work(i * share, std::min(size, (i + 1) * share)); }));
  }
  work(0, std::min(size, share));
  for (std::future<void>& other : others) other.get();
}

}  // namespace gdn
