// libFuzzer's entry to the target that GDN_FUZZ names. A failed expectation ends the program.
#include <cstdint>

#include "gtest/gtest.h"
#include "tests/fuzz/targets.h"

extern "C" int LLVMFuzzerInitialize(int* /*argc*/, char*** /*argv*/) {
  GTEST_FLAG_SET(break_on_failure, true);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  gdn::test::GDN_FUZZ({reinterpret_cast<const char*>(data), size});
  return 0;
}
