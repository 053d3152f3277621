// Tests on the machine in software, whose course follows from --gtest_random_seed.
#include <gtest/gtest.h>

#include "tests/emulator/machine.h"

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  gdn::emulator::SetSeed(static_cast<uint64_t>(GTEST_FLAG_GET(random_seed)));
  return RUN_ALL_TESTS();
}
