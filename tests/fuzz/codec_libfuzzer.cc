// libFuzzer entry: the first byte chooses the message and how it is cut, the rest is the message.
#include <google/protobuf/stubs/logging.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "tests/fuzz/codec_compare.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  google::protobuf::SetLogHandler(nullptr);
  if (size == 0) return 0;
  const std::string_view message(reinterpret_cast<const char*>(data) + 1, size - 1);
  uint32_t state = *data;
  const auto next = [&state](size_t n) { return (state = state * 1664525 + 1013904223) / 7 % n; };
  const auto pieces = gdn::Slice(message, 1 + *data / 8, next);
  const std::string difference =
      *data % 2 == 0 ? gdn::CompareDecodeRequest(pieces) : gdn::CompareStreamRequest(pieces);
  if (!difference.empty()) {
    std::fprintf(stderr, "difference: %s\n", difference.c_str());
    std::abort();
  }
  return 0;
}
