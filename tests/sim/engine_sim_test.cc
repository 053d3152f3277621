// A seeded simulation of the engine. --events=N and --seed=N after GoogleTest's own flags change
// what is run.
#include <iostream>
#include <map>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/strip.h"
#include "gtest/gtest.h"
#include "tests/sim/simulation.h"

namespace gdn::test {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
uint64_t g_events = 100000;  // several times as slow
#else
uint64_t g_events = 1000000;
#endif
uint64_t g_seed = 1;

// By the number of batches that may be in flight.
class EngineSimulation : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Depths, EngineSimulation, ::testing::Values(1, 2));

TEST_P(EngineSimulation, EveryAnswerIsTheContracts) {
  SCOPED_TRACE(::testing::Message() << "--seed=" << g_seed << " --events=" << g_events);
  SeededChoices choices(g_seed);
  Simulation simulation(&choices, GetParam(), g_seed * 1000003 + 1);
  for (uint64_t event = 0; event < g_events; ++event) {
    SCOPED_TRACE(::testing::Message() << "event " << event);
    if (event == g_events - g_events / 20) simulation.Drain();
    simulation.Event();
    if (::testing::Test::HasFailure()) return;
  }
  simulation.Finish();
  // It is no test of what never happened.
  const int64_t overlaps = simulation.overlaps(static_cast<size_t>(GetParam()) - 1);
  std::cout << "overlaps " << overlaps << "\n";
  if (g_events >= 100000) {
    EXPECT_GT(overlaps, 100);
  }
  for (const char* what :
       {"between pieces", "calls refused", "ERROR_REASON_UNSPECIFIED", "replayed",
        "ERROR_REASON_NON_FINITE_INPUT", "ERROR_REASON_STEP_ID_REUSED",
        "ERROR_REASON_SEQUENCE_NOT_FOUND", "ERROR_REASON_SEQUENCE_EXPIRED",
        "ERROR_REASON_POSITION_MISMATCH", "ERROR_REASON_ANSWER_NOT_KEPT",
        "ERROR_REASON_SLOTS_EXHAUSTED", "ERROR_REASON_QUEUE_FULL", "ERROR_REASON_DRAINING",
        "ERROR_REASON_STATE_POISONED", "ERROR_REASON_DEVICE_ERROR"}) {
    const auto it = simulation.counts().find(what);
    const int count = it == simulation.counts().end() ? 0 : it->second;
    std::cout << what << " " << count << "\n";
    if (g_events >= 100000) {
      EXPECT_GT(count, 20) << what;
    }
  }
}

}  // namespace

bool ReadArgument(absl::string_view argument) {
  if (absl::ConsumePrefix(&argument, "--events=")) return absl::SimpleAtoi(argument, &g_events);
  if (absl::ConsumePrefix(&argument, "--seed=")) return absl::SimpleAtoi(argument, &g_seed);
  return false;
}

}  // namespace gdn::test

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  for (int i = 1; i < argc; ++i) {
    if (gdn::test::ReadArgument(argv[i])) continue;
    std::cerr << "usage: " << argv[0] << " [--events=N] [--seed=N]\n";
    return 2;
  }
  return RUN_ALL_TESTS();
}
