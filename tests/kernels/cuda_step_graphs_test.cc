// Decode graphs, and what happens to steps that cannot have one.
#include <gtest/gtest.h>

#include <cstdint>
#include <utility>

#include "kernels/cuda/backend/cuda_backend.h"
#include "kernels/cuda/backend/memory.h"
#include "kernels/cuda/backend/step_graphs.h"

namespace gdn::cuda {
namespace {

TEST(StepGraphs, ThereIsAGraphForPowersOfTwoAndBetween) {
  const int64_t expected[] = {1, 2, 3, 4, 6, 6, 8, 8, 12};
  for (int64_t rows = 1; rows <= 9; ++rows) EXPECT_EQ(GraphRows(rows), expected[rows - 1]);
  EXPECT_EQ(GraphRows(96), 96);
  EXPECT_EQ(GraphRows(97), 128);
}

// Steps that set the bytes of `memory_` to a number that grows with each call.
class StepGraphsOnDevice : public ::testing::Test {
 protected:
  static constexpr StepGraphs::Key kKey = {.layer = 1, .rows = 2};

  void SetUp() override {
    if (!CudaDevicePresent()) GTEST_SKIP() << "cuda cannot run here: no device";
    auto memory = Memory::Make(Memory::Place::kDevice, 1);
    ASSERT_TRUE(memory.ok()) << memory.status();
    memory_ = *std::move(memory);
    ASSERT_EQ(cudaStreamCreate(&stream_), cudaSuccess);
  }
  void TearDown() override {
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
  }

  // What the step leaves.
  int Launch(const StepGraphs::Enqueue& enqueue) {
    Errors errors;
    graphs_.Launch(kKey, enqueue, stream_, errors);
    EXPECT_TRUE(errors.ok()) << errors.status();
    uint8_t left = 0;
    EXPECT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
    EXPECT_EQ(cudaMemcpy(&left, memory_.data(), 1, cudaMemcpyDeviceToHost), cudaSuccess);
    return left;
  }

  void Enqueue(cudaStream_t stream, Errors& errors) {
    errors.Add("memset", cudaMemsetAsync(memory_.data(), ++calls_, 1, stream));
  }

  StepGraphs graphs_;
  Memory memory_;
  cudaStream_t stream_ = nullptr;
  int calls_ = 0;
};

TEST_F(StepGraphsOnDevice, AStepIsCapturedOnce) {
  const auto step = [&](cudaStream_t stream, Errors& errors) { Enqueue(stream, errors); };
  EXPECT_NE(graphs_.Prepare(kKey, step, stream_), nullptr);
  EXPECT_EQ(Launch(step), 1);
  EXPECT_EQ(Launch(step), 1);
}

// Nothing may wait for a stream that is captured: there is no graph of such a step.
TEST_F(StepGraphsOnDevice, WhatCannotBeCapturedRunsAsItIs) {
  const auto step = [&](cudaStream_t stream, Errors& errors) {
    errors.Add("wait", cudaStreamSynchronize(stream));
    Enqueue(stream, errors);
  };
  EXPECT_EQ(graphs_.Prepare(kKey, step, stream_), nullptr);
  EXPECT_EQ(cudaPeekAtLastError(), cudaSuccess);
  EXPECT_EQ(Launch(step), 2);
  EXPECT_EQ(Launch(step), 3) << "and is not captured again";
}

TEST_F(StepGraphsOnDevice, ErrorsOfStepsWithoutAGraphAreTheCallers) {
  const auto step = [&](cudaStream_t, Errors& errors) {
    errors.Add("broken", cudaErrorInvalidValue);
  };
  Errors errors;
  graphs_.Launch(kKey, step, stream_, errors);
  EXPECT_FALSE(errors.ok());
}

}  // namespace
}  // namespace gdn::cuda
