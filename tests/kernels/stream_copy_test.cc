#include "kernels/stream_copy.h"

#include <numeric>
#include <string>

#include "gtest/gtest.h"

namespace gdn {
namespace {

TEST(StreamCopyTest, CopiesEveryLengthFromAndToEveryAddress) {
  std::string from(400, '\0');
  std::iota(from.begin(), from.end(), '\1');
  for (size_t begin = 0; begin < 64; begin += 7) {
    for (size_t at = 0; at < 64; at += 3) {
      for (size_t bytes = 0; bytes + 64 < from.size(); bytes += 5) {
        std::string to(from.size() + 64, '\0');
        StreamCopy(to.data() + at, from.data() + begin, bytes);
        StreamFence();
        ASSERT_EQ(to, std::string(at, '\0') + from.substr(begin, bytes) +
                          std::string(to.size() - at - bytes, '\0'));
      }
    }
  }
}

}  // namespace
}  // namespace gdn
