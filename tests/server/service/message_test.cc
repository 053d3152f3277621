#include "server/service/message.h"

#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace gdn {
namespace {

constexpr size_t kPiece = 48 << 10;

// A step whose input came in pieces, and the memory that a device would read.
class GatherInputTest : public ::testing::Test {
 protected:
  GatherInputTest() {
    auto message = std::make_shared<std::string>(2 * kPiece, '\0');
    std::iota(message->begin(), message->end(), '\0');
    input_ = *message;
    const std::string_view bytes = *message;
    step_.request.input = {bytes.substr(0, kPiece), bytes.substr(kPiece)};
    message_ = message;
    step_.message = std::move(message);
  }

  static std::shared_ptr<HostPool> PoolOf(size_t bytes) {
    const auto memory = std::make_shared<std::vector<std::byte>>(bytes);
    return std::make_shared<HostPool>(memory, memory->data(), memory->size());
  }
  std::string Joined() const {
    std::string joined;
    for (const std::string_view piece : step_.request.input) joined += piece;
    return joined;
  }

  SpareHand hand_;
  Step step_;
  std::string input_;
  std::weak_ptr<void> message_;
};

TEST_F(GatherInputTest, TheInputMovesAndTheMessageGoes) {
  const auto pool = PoolOf(128 << 10);
  GatherInput(pool, std::nullopt, &hand_, &step_);
  EXPECT_EQ(Joined(), input_);
  EXPECT_EQ(step_.request.input.size(), 1u);
  EXPECT_TRUE(step_.request.direct_input);
  EXPECT_TRUE(message_.expired());
  EXPECT_GE(pool->bytes_taken(), input_.size());
  step_.message = nullptr;
  EXPECT_EQ(pool->bytes_taken(), 0u);
}

TEST_F(GatherInputTest, ItStaysWhereThereIsNoRoom) {
  for (const auto& pool : {PoolOf(64 << 10), std::shared_ptr<HostPool>()}) {
    GatherInput(pool, std::nullopt, &hand_, &step_);
    EXPECT_EQ(Joined(), input_);
    EXPECT_FALSE(step_.request.direct_input);
    EXPECT_FALSE(message_.expired());
  }
}

TEST_F(GatherInputTest, WhereItLooksItSaysWhatIsFinite) {
  std::string ones(input_.size(), '\x01');
  for (const size_t infinity : {size_t{0}, kPiece - 1, ones.size() - 2, ones.size()}) {
    std::string message = ones;
    if (infinity < ones.size()) message.replace(infinity / 2 * 2, 2, "\x80\x7f");
    for (const std::optional<DType> type : {std::optional(DType::kBf16), std::optional<DType>()}) {
      Step step;
      const std::string_view bytes = message;
      step.request.input = {bytes.substr(0, kPiece + 1), bytes.substr(kPiece + 1)};
      GatherInput(PoolOf(128 << 10), type, &hand_, &step);
      EXPECT_EQ(step.known_finite, type.has_value() && infinity == ones.size()) << infinity;
    }
  }
}

TEST_F(GatherInputTest, ASmallOneStays) {
  step_.request.input.pop_back();
  const auto pool = PoolOf(128 << 10);
  GatherInput(pool, std::nullopt, &hand_, &step_);
  EXPECT_FALSE(step_.request.direct_input);
  EXPECT_EQ(pool->bytes_taken(), 0u);
}

}  // namespace
}  // namespace gdn
