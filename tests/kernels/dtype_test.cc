#include "kernels/dtype.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

namespace gdn {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// The value of a 16-bit float of the given fields, by its definition.
double Value(uint16_t bits, int mantissa_bits, int bias) {
  const int mantissa = bits & ((1 << mantissa_bits) - 1);
  const int exponent = (bits & 0x7fff) >> mantissa_bits;
  const double fraction = std::ldexp(mantissa, -mantissa_bits);
  const double magnitude =
      exponent == 0 ? std::ldexp(fraction, 1 - bias) : std::ldexp(1 + fraction, exponent - bias);
  return (bits & 0x8000) != 0 ? -magnitude : magnitude;
}

// Every finite value converts exactly and back, and halfway between two neighbours the even one
// wins while a float beside the middle goes to the nearer one.
template <typename T>
void CheckEveryValue(int mantissa_bits, int bias, uint16_t infinity) {
  for (int sign : {0, 0x8000}) {
    for (int magnitude = 0; magnitude < infinity; ++magnitude) {
      const auto bits = static_cast<uint16_t>(magnitude | sign);
      const float x = ToFloat(T{bits});
      ASSERT_EQ(x, Value(bits, mantissa_bits, bias)) << bits;
      ASSERT_EQ(FromFloat<T>(x).bits, bits);
      if (magnitude + 1 == infinity) continue;
      const float next = ToFloat(T{static_cast<uint16_t>(bits + 1)});
      const auto middle = static_cast<float>((static_cast<double>(x) + next) / 2);
      ASSERT_EQ(FromFloat<T>(middle).bits, bits + (bits & 1)) << bits;
      ASSERT_EQ(FromFloat<T>(std::nextafter(middle, x)).bits, bits) << bits;
      ASSERT_EQ(FromFloat<T>(std::nextafter(middle, next)).bits, bits + 1) << bits;
    }
  }
}

TEST(DtypeTest, EveryBf16) { CheckEveryValue<Bf16>(7, 127, 0x7f80); }

TEST(DtypeTest, EveryFp16) { CheckEveryValue<Fp16>(10, 15, 0x7c00); }

TEST(DtypeTest, InfinityAndNanStayWhatTheyAre) {
  EXPECT_EQ(FromFloat<Bf16>(kInfinity).bits, 0x7f80);
  EXPECT_EQ(FromFloat<Fp16>(-kInfinity).bits, 0xfc00);
  EXPECT_EQ(ToFloat(Bf16{0xff80}), -kInfinity);
  EXPECT_EQ(ToFloat(Fp16{0x7c00}), kInfinity);
  // A NaN whose payload lies in the bits that are dropped must not turn into infinity.
  for (uint32_t bits : {0x7f800001u, 0xff800001u, 0x7fc00000u, 0x7fffffffu, 0xffffffffu}) {
    const auto nan = std::bit_cast<float>(bits);
    EXPECT_TRUE(std::isnan(ToFloat(FromFloat<Bf16>(nan)))) << bits;
    EXPECT_TRUE(std::isnan(ToFloat(FromFloat<Fp16>(nan)))) << bits;
  }
  EXPECT_TRUE(std::isnan(ToFloat(Fp16{0x7c01})));
  EXPECT_TRUE(std::isnan(ToFloat(Bf16{0x7f81})));
}

TEST(DtypeTest, LargeFloatsOverflowToInfinity) {
  EXPECT_EQ(FromFloat<Fp16>(65519.996f).bits, 0x7bff);
  EXPECT_EQ(FromFloat<Fp16>(65520.0f).bits, 0x7c00);
  EXPECT_EQ(FromFloat<Fp16>(1e30f).bits, 0x7c00);
  EXPECT_EQ(FromFloat<Bf16>(std::numeric_limits<float>::max()).bits, 0x7f80);
}

TEST(DtypeTest, TinyFloatsBecomeSignedZero) {
  EXPECT_EQ(FromFloat<Fp16>(1e-20f).bits, 0);
  EXPECT_EQ(FromFloat<Fp16>(-1e-20f).bits, 0x8000);
  EXPECT_EQ(FromFloat<Fp16>(std::ldexp(1.0f, -25)).bits, 0) << "halfway to the smallest: even";
  EXPECT_EQ(FromFloat<Fp16>(std::ldexp(1.5f, -25)).bits, 1);
}

TEST(DtypeTest, LoadAndStoreByType) {
  for (DType type : {DType::kFp32, DType::kBf16, DType::kFp16}) {
    alignas(4) std::byte data[12] = {};
    Store(data, type, 2, -1.5f);
    EXPECT_EQ(Load(data, type, 2), -1.5f);
    EXPECT_EQ(Load(data, type, 1), 0.0f);
    EXPECT_TRUE(std::isnan((Store(data, type, 0, kNan), Load(data, type, 0))));
  }
}

}  // namespace
}  // namespace gdn
