#include "gtest/gtest.h"
#include "tests/fuzz/targets.h"
#include "tests/sim/simulation.h"

namespace gdn::test {

void FuzzCalls(std::string_view bytes) {
  ByteChoices choices(bytes);
  const int depth = 1 + static_cast<int>(choices.Below(2));
  Simulation simulation(&choices, depth, /*first_epoch=*/1);
  while (!choices.empty() && !::testing::Test::HasFailure()) simulation.Event();
  simulation.Finish();
}

}  // namespace gdn::test
