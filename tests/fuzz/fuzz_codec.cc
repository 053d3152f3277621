#include <google/protobuf/stubs/logging.h>

#include <cstdint>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/fuzz/codec_compare.h"
#include "tests/fuzz/targets.h"

namespace gdn::test {

void FuzzCodec(std::string_view bytes) {
  google::protobuf::SetLogHandler(nullptr);  // refused UTF-8 is logged by the generated parser
  if (bytes.empty()) return;
  const auto first = static_cast<uint8_t>(bytes.front());
  uint32_t state = first;
  const auto next = [&state](size_t n) { return (state = state * 1664525 + 1013904223) / 7 % n; };
  const std::vector<std::string_view> pieces = Slice(bytes.substr(1), 1 + first / 8, next);
  EXPECT_EQ(first % 2 == 0 ? CompareDecodeRequest(pieces) : CompareStreamRequest(pieces), "");
}

}  // namespace gdn::test
