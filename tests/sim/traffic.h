// Random steps and calls as careful, careless and hostile callers send them.
#pragma once

#include <cstdint>
#include <deque>
#include <random>
#include <string>
#include <vector>

#include "tests/sim/mirror.h"

namespace gdn::test {

class Traffic {
 public:
  explicit Traffic(uint64_t seed) : random_(seed) {}

  // A number in [0, n).
  uint64_t Below(uint64_t n) { return random_() % n; }
  bool Percent(uint64_t chance) { return Below(100) < chance; }

  // A step, or an earlier one again. It is one that passes on arrival. `layers` are N of
  // model.layers.N.
  StepSpec Step(const Mirror& mirror, const std::vector<int>& layers, absl::Time now);
  CallSpec Call(const Mirror& mirror);

 private:
  StepSpec NewStep(const Mirror& mirror, const std::vector<int>& layers, absl::Time now);
  void NameById(const Mirror& mirror, StepSpec* spec);
  void NameBySlot(const Mirror& mirror, StepSpec* spec);
  void StatePositions(const Mirror& mirror, StepSpec* spec);
  void FillTokens(StepSpec* spec);
  float Token();
  std::string Id();
  std::vector<std::string> DistinctIds(size_t count);

  std::mt19937_64 random_;
  uint64_t next_step_id_ = 1000;
  std::deque<StepSpec> history_;
};

}  // namespace gdn::test
