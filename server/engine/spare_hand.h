// Work on some bytes that is shared with a thread that spins for something else to do: it is awake,
// where another would have to be woken.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <functional>
#include <thread>

#include "server/engine/spin.h"

namespace gdn {

class SpareHand {
 public:
  // Calls work(begin, end) for ranges that together are [0, size) and begin at multiples of 32 KiB,
  // on this thread and on one that comes to Help. Returns once all is done.
  void Share(size_t size, const std::function<void(size_t begin, size_t end)>& work) {
    Job job = {work, size};
    Job* expected = nullptr;
    const bool offered = job_.compare_exchange_strong(expected, &job);
    while (job.RunNext()) {
    }
    expected = &job;
    if (!offered || job_.compare_exchange_strong(expected, nullptr)) return;
    while (!SpinUntil([&job] { return job.helped.load(); })) std::this_thread::yield();
  }

  // Takes part in what is shared at this moment, if anything is, until `stop`.
  template <typename Stop>
  void Help(const Stop& stop) {
    if (job_.load(std::memory_order_relaxed) == nullptr) return;
    Job* job = job_.exchange(nullptr);
    if (job == nullptr) return;
    while (!stop() && job->RunNext()) {
    }
    job->helped = true;
  }

 private:
  struct Job {
    const std::function<void(size_t, size_t)>& work;
    const size_t size;
    std::atomic<size_t> next = 0;
    std::atomic<bool> helped = false;  // who took it is done, and has seen the last of it

    // False where all of it has been begun.
    bool RunNext() {
      constexpr size_t kUnit = 32 << 10;
      const size_t begin = next.fetch_add(kUnit);
      if (begin < size) work(begin, std::min(size, begin + kUnit));
      return begin < size;
    }
  };

  std::atomic<Job*> job_ = nullptr;  // that nobody helps with yet
};

}  // namespace gdn
