// Numbers that many threads add to and that are read now and then, without a lock.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

namespace gdn {

class Counter {
 public:
  void Add(uint64_t n = 1) { value_.fetch_add(n, std::memory_order_relaxed); }
  void Subtract(uint64_t n = 1) { value_.fetch_sub(n, std::memory_order_relaxed); }
  uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_ = 0;
};

// How often a value was at most each bound, and more than all of them.
class Histogram {
 public:
  static constexpr size_t kMostBounds = 20;

  // `bounds` ascend, are kMostBounds at most, and stay where they are.
  explicit Histogram(std::span<const uint64_t> bounds) : bounds_(bounds) {}

  void Observe(uint64_t value) {
    const auto bound = std::lower_bound(bounds_.begin(), bounds_.end(), value);
    counts_[static_cast<size_t>(bound - bounds_.begin())].Add();
    sum_.Add(value);
  }

  std::span<const uint64_t> bounds() const { return bounds_; }
  // Of the values over bound i - 1 and at most bound i; i is bounds().size() for those over all.
  uint64_t count(size_t i) const { return counts_[i].value(); }
  uint64_t sum() const { return sum_.value(); }

 private:
  const std::span<const uint64_t> bounds_;
  std::array<Counter, kMostBounds + 1> counts_;
  Counter sum_;
};

}  // namespace gdn
