// Where the decisions of a simulation come from.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <random>
#include <string_view>

namespace gdn::test {

class Choices {
 public:
  virtual ~Choices() = default;
  // A number in [0, n).
  virtual uint64_t Below(uint64_t n) = 0;
  bool Percent(uint64_t chance) { return Below(100) < chance; }
};

class SeededChoices final : public Choices {
 public:
  explicit SeededChoices(uint64_t seed) : random_(seed) {}
  uint64_t Below(uint64_t n) override { return random_() % n; }

 private:
  std::mt19937_64 random_;
};

// Each choice takes as many of the bytes as its numbers need; once they are used up all are 0.
class ByteChoices final : public Choices {
 public:
  explicit ByteChoices(std::string_view bytes) : bytes_(bytes) {}
  uint64_t Below(uint64_t n) override {
    uint64_t value = 0;
    for (uint64_t most = n - 1; most > 0; most >>= 8) value = value << 8 | Next();
    return value % n;
  }
  bool empty() const { return bytes_.empty(); }

 private:
  uint8_t Next() {
    if (bytes_.empty()) return 0;
    const auto next = static_cast<uint8_t>(bytes_.front());
    bytes_.remove_prefix(1);
    return next;
  }

  std::string_view bytes_;
};

}  // namespace gdn::test
