// Tests on the machine in software. The course of each follows from --gtest_random_seed alone,
// whatever ran before it; a repetition has the next seed.
#include <gtest/gtest.h>

#include "tests/emulator/machine.h"

namespace gdn::emulator {
namespace {

class Seeding : public ::testing::EmptyTestEventListener {
  void OnTestIterationStart(const ::testing::UnitTest&, int iteration) override {
    seed_ = GTEST_FLAG_GET(random_seed) + iteration;
  }
  void OnTestStart(const ::testing::TestInfo&) override { SetSeed(static_cast<uint64_t>(seed_)); }

  int seed_ = 0;
};

}  // namespace
}  // namespace gdn::emulator

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  ::testing::UnitTest::GetInstance()->listeners().Append(new gdn::emulator::Seeding);
  return RUN_ALL_TESTS();
}
