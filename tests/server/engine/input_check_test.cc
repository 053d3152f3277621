#include "server/engine/input_check.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/finite.h"

namespace gdn {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// Every value of 16 bits, and of 32 bits by their upper half.
TEST(InputCheckTest, KnowsEveryNanAndInfinity) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    EXPECT_EQ(AllFinite(&half, 2, DType::kBf16), (bits & 0x7f80) != 0x7f80) << bits;
    EXPECT_EQ(AllFinite(&half, 2, DType::kFp16), (bits & 0x7c00) != 0x7c00) << bits;
    const uint32_t word = bits << 16 | 1;
    float number = 0;
    std::memcpy(&number, &word, sizeof number);
    EXPECT_EQ(AllFinite(&word, 4, DType::kFp32), std::isfinite(number)) << bits;
  }
}

TEST(InputCheckTest, FindsOneAnywhereAtAnyAddress) {
  std::vector<float> numbers(400, 1.0f);
  std::vector<char> bytes(numbers.size() * sizeof(float) + 1);
  for (size_t i = 0; i < numbers.size(); ++i) {
    numbers[i] = std::numeric_limits<float>::infinity();
    std::memcpy(bytes.data() + 1, numbers.data(), numbers.size() * sizeof(float));
    EXPECT_FALSE(AllFinite(bytes.data() + 1, bytes.size() - 1, DType::kFp32)) << i;
    numbers[i] = std::numeric_limits<float>::max();
  }
}

class NonFiniteRowsTest : public ::testing::Test {
 protected:
  // Rows of 2, 0, 1 and 3 tokens, of which the third is padding; a tensor of one number a token in
  // bf16 and one of one in fp32.
  NonFiniteRowsTest() {
    request_.slots = {0, 1, -1, 3};
    request_.token_counts = {2, 0, 1, 3};
  }
  std::vector<uint32_t> Rows(const std::string& bytes, size_t piece) {
    request_.input.clear();
    for (size_t at = 0; at < bytes.size(); at += piece) {
      request_.input.push_back(std::string_view(bytes).substr(at, piece));
      request_.input.emplace_back();
    }
    return NonFiniteRows(request_, {{InputTensor::Kind::kB, 1, DType::kBf16},
                                    {InputTensor::Kind::kBeta, 1, DType::kFp32}});
  }
  static constexpr size_t kTokens = 6;

  StepRequest request_;
};

TEST_F(NonFiniteRowsTest, NamesTheRowHoweverTheInputIsCut) {
  const std::vector<std::vector<uint32_t>> rows_of_token = {{0}, {0}, {}, {3}, {3}, {3}};
  for (size_t token = 0; token < kTokens; ++token) {
    std::string first(kTokens * 6, '\0');
    first.replace(token * 2, 2, "\x80\xff");  // -infinity
    std::string second(kTokens * 6, '\0');
    second.replace(kTokens * 2 + token * 4, 4, std::string("\x01\x00\x80\x7f", 4));  // NaN
    for (size_t piece = 1; piece <= first.size(); ++piece) {
      EXPECT_EQ(Rows(first, piece), rows_of_token[token]) << token << " " << piece;
      EXPECT_EQ(Rows(second, piece), rows_of_token[token]) << token << " " << piece;
    }
  }
}

TEST_F(NonFiniteRowsTest, NamesEachRowOnce) {
  EXPECT_THAT(Rows(std::string(kTokens * 6, '\xff'), 5), ElementsAre(0, 3));
  EXPECT_THAT(Rows(std::string(kTokens * 6, '\x11'), 5), IsEmpty());
}

TEST_F(NonFiniteRowsTest, WhatASeedMakesIsFinite) {
  request_.synthetic_seed = 1;
  EXPECT_THAT(Rows("", 1), IsEmpty());
}

}  // namespace
}  // namespace gdn
