// Random steps and calls as careful, careless and hostile callers send them.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "tests/sim/choices.h"
#include "tests/sim/mirror.h"

namespace gdn::test {

class Traffic {
 public:
  // `choices` outlives it.
  explicit Traffic(Choices* choices) : choices_(choices) {}

  // A step, or an earlier one again. It is one that passes on arrival. `layers` are N of
  // model.layers.N.
  StepSpec Step(const Mirror& mirror, const std::vector<int>& layers, absl::Time now);
  CallSpec Call(const Mirror& mirror, absl::Time now);

 private:
  StepSpec NewStep(const Mirror& mirror, const std::vector<int>& layers, absl::Time now);
  void NameById(const Mirror& mirror, StepSpec* spec);
  void NameBySlot(const Mirror& mirror, StepSpec* spec);
  void StatePositions(const Mirror& mirror, StepSpec* spec);
  void FillTokens(StepSpec* spec);
  uint64_t Below(uint64_t n) { return choices_->Below(n); }
  bool Percent(uint64_t chance) { return choices_->Percent(chance); }
  float Token();
  std::vector<std::string> DistinctIds(size_t count);

  Choices* const choices_;
  uint64_t next_step_id_ = 1000;
  std::deque<StepSpec> history_;
};

}  // namespace gdn::test
