#include "server/service/shared_memory/place_step.h"

#include <cstring>
#include <limits>

#include "gtest/gtest.h"
#include "tests/testing/fake_device_memory.h"
#include "tests/testing/shared_object.h"

namespace gdn::test {
namespace {

constexpr uint64_t kSize = 1 << 20;
constexpr uint64_t kMost = std::numeric_limits<uint64_t>::max();
constexpr uint64_t kRow = 4 * sizeof(float);

// Hidden states of 4 numbers in fp32: 16 bytes a token, in and out.
class PlaceStepTest : public ::testing::Test {
 protected:
  PlaceStepTest() : object_(kSize) {
    limits_.geometry = {.hidden_size = 4};
    limits_.io = DType::kFp32;
    Register("r", &regions_);
    Register("r", &plain_);
  }
  void Register(const std::string& name, Regions* regions) const {
    v1::RegisterSharedMemoryRequest request;
    request.set_region(name);
    request.set_posix_name(object_.name());
    request.set_byte_size(kSize);
    EXPECT_TRUE(regions->Register(request).ok());
  }
  struct StepOf : Step {
    StepOf(uint64_t tokens, uint64_t input, uint64_t output) {
      request.input_layout = v1::INPUT_LAYOUT_HIDDEN;
      request.request_ids = {"a"};
      request.token_counts = {static_cast<uint32_t>(tokens)};
      request.shared_memory = SharedPlace{"r", input, output};
    }
  };
  v1::ErrorReason Place(Step* step) { return PlaceStep(regions_, limits_, step).reason; }
  v1::ErrorReason Place(uint64_t tokens, uint64_t input, uint64_t output) {
    StepOf step(tokens, input, output);
    return Place(&step);
  }

  SharedObject object_;
  StepLimits limits_;
  FakeDeviceMemoryOpener opener_;
  Regions regions_{"gdn", &opener_};
  Regions plain_{"gdn", nullptr};
};

TEST_F(PlaceStepTest, TheInputIsCopied) {
  std::memset(object_.data() + 16, 5, 32);
  StepOf step(2, 16, 64);
  EXPECT_EQ(Place(&step), v1::ERROR_REASON_UNSPECIFIED);
  std::memset(object_.data(), 6, 64);
  ASSERT_EQ(step.request.input.size(), 1u);
  EXPECT_EQ(step.request.input[0], std::string(32, '\5'));
  EXPECT_FALSE(step.request.direct_input);
}

TEST_F(PlaceStepTest, TheOutputGoesToTheRegion) {
  StepOf step(2, 0, 64);
  EXPECT_EQ(Place(&step), v1::ERROR_REASON_UNSPECIFIED);
  const OutputBuffer buffer = step.allocate(32);
  EXPECT_TRUE(buffer.shared);
  EXPECT_EQ(buffer.size, 32u);
  EXPECT_EQ(buffer.address(), buffer.data);
  const std::byte value{9};
  EXPECT_TRUE(buffer.Write(31, {&value, 1}));
  EXPECT_EQ(object_.data()[95], value);
  std::byte read{};
  EXPECT_TRUE(buffer.Read(31, {&read, 1}));
  EXPECT_EQ(read, value);
}

TEST_F(PlaceStepTest, WhatLeavesTheRegionIsRefused) {
  EXPECT_EQ(Place(1, kSize - kRow, 0), v1::ERROR_REASON_UNSPECIFIED);
  EXPECT_EQ(Place(1, 0, kSize - kRow), v1::ERROR_REASON_UNSPECIFIED);
  for (const uint64_t beyond : {kSize - kRow + 1, kSize, kSize + 1, uint64_t{1} << 63, kMost,
                                kMost - kRow + 1, kMost - kRow}) {
    EXPECT_EQ(Place(1, beyond, 0), v1::ERROR_REASON_INPUT_SIZE_MISMATCH) << beyond;
    EXPECT_EQ(Place(1, 0, beyond), v1::ERROR_REASON_INPUT_SIZE_MISMATCH) << beyond;
  }
  EXPECT_EQ(Place(kSize / kRow, 0, 0), v1::ERROR_REASON_UNSPECIFIED);
  EXPECT_EQ(Place(kSize / kRow + 1, 0, 0), v1::ERROR_REASON_INPUT_SIZE_MISMATCH);
  StepOf step(1, kMost, 0);
  const Fault fault = PlaceStep(regions_, limits_, &step);
  EXPECT_EQ(fault.metadata.at("expected_bytes"), std::to_string(kMost));
  EXPECT_EQ(fault.metadata.at("actual_bytes"), std::to_string(kSize));
}

TEST_F(PlaceStepTest, OverlapsAreRefusedUnlessTheyBeginAtOneByte) {
  EXPECT_EQ(Place(2, 0, 0), v1::ERROR_REASON_UNSPECIFIED);
  EXPECT_EQ(Place(2, 0, 32), v1::ERROR_REASON_UNSPECIFIED);
  EXPECT_EQ(Place(2, 32, 0), v1::ERROR_REASON_UNSPECIFIED);
  for (const uint64_t output : {1, 16, 31}) {
    EXPECT_EQ(Place(2, 0, output), v1::ERROR_REASON_MALFORMED_BATCH) << output;
    EXPECT_EQ(Place(2, output, 0), v1::ERROR_REASON_MALFORMED_BATCH) << output;
  }
}

TEST_F(PlaceStepTest, WhatIsNotUsedMayLieAnywhere) {
  StepOf synthetic(1, kMost, 0);
  synthetic.request.synthetic_seed = 1;
  EXPECT_EQ(Place(&synthetic), v1::ERROR_REASON_UNSPECIFIED);
  EXPECT_TRUE(synthetic.request.input.empty());
  StepOf discarded(1, 0, kMost);
  discarded.request.discard_output = true;
  EXPECT_EQ(Place(&discarded), v1::ERROR_REASON_UNSPECIFIED);
  EXPECT_FALSE(discarded.allocate);  // as it was
  EXPECT_EQ(Place(0, kMost, kMost), v1::ERROR_REASON_UNSPECIFIED);
}

TEST_F(PlaceStepTest, RegionsThatAreNotThere) {
  StepOf step(1, 0, 0);
  step.request.shared_memory->region = "other";
  EXPECT_EQ(Place(&step), v1::ERROR_REASON_REGION_NOT_FOUND);
  EXPECT_TRUE(regions_.Unregister("r", [] {}).ok());
  EXPECT_EQ(Place(1, 0, 0), v1::ERROR_REASON_REGION_NOT_FOUND);
}

TEST_F(PlaceStepTest, ATruncatedRegion) {
  object_.Resize(100);
  EXPECT_EQ(Place(1, 0, 16), v1::ERROR_REASON_UNSPECIFIED);
  EXPECT_EQ(Place(1, 96, 0), v1::ERROR_REASON_INPUT_SIZE_MISMATCH);
  EXPECT_EQ(Place(1, 0, 96), v1::ERROR_REASON_INPUT_SIZE_MISMATCH);
  // After it was placed the output is dropped.
  StepOf step(1, 0, 16);
  EXPECT_EQ(Place(&step), v1::ERROR_REASON_UNSPECIFIED);
  object_.Resize(0);
  const std::byte value{9};
  EXPECT_TRUE(step.allocate(kRow).Write(0, {&value, 1}));
  object_.Resize(kSize);
  EXPECT_EQ(Place(1, 0, 16), v1::ERROR_REASON_INPUT_SIZE_MISMATCH);  // no longer mapped
}

TEST_F(PlaceStepTest, LargeTensorsAreLeftToTheDevice) {
  constexpr uint64_t kTokens = (64 << 10) / kRow;
  StepOf step(kTokens, 16, 1 << 19);
  EXPECT_EQ(Place(&step), v1::ERROR_REASON_UNSPECIFIED);
  EXPECT_TRUE(step.request.direct_input);
  const auto region = regions_.Find("r");
  EXPECT_EQ(step.request.input[0].data(),
            reinterpret_cast<const char*>(region->device()->address() + 16));
  EXPECT_EQ(step.request.input_bytes(), kTokens * kRow);
  const OutputBuffer buffer = step.allocate(kTokens * kRow);
  EXPECT_EQ(buffer.device, region->device());
  EXPECT_EQ(buffer.address(), region->device()->address() + (1 << 19));

  StepOf small(kTokens - 1, 16, 1 << 19);
  EXPECT_EQ(Place(&small), v1::ERROR_REASON_UNSPECIFIED);
  EXPECT_FALSE(small.request.direct_input);
  EXPECT_EQ(small.allocate((kTokens - 1) * kRow).device, nullptr);

  StepOf plain(kTokens, 16, 1 << 19);
  EXPECT_TRUE(PlaceStep(plain_, limits_, &plain).ok());
  EXPECT_FALSE(plain.request.direct_input);
  EXPECT_EQ(plain.allocate(kTokens * kRow).device, nullptr);
}

}  // namespace
}  // namespace gdn::test
