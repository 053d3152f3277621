// What becomes of the CUDA backend once a kernel has gone astray.
#include <cuda_runtime_api.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>

#include "kernels/cuda/backend/cuda_backend.h"
#include "kernels/cuda/backend/memory.h"
#include "tests/testing/layer_case.h"
#include "tests/testing/step.h"

namespace gdn::test {
namespace {

BackendShape Shape() {
  BackendShape shape = SmallShape();
  shape.geometry.hidden_size = shape.geometry.key_dim = shape.geometry.value_dim = 128;
  shape.io = DType::kBf16;
  return shape;
}

// A layer that was never loaded has null weights. Ends the process: its context is lost.
[[noreturn]] void RunWithoutWeights() {
  const BackendShape shape = Shape();
  absl::StatusOr<std::unique_ptr<Backend>> backend = MakeCudaBackend(shape);
  if (!backend.ok()) std::exit(2);
  Rng rng(1);
  Step step(rng, shape, 0, InputLayout::kHidden, {{.slot = 1, .length = 1}});
  const absl::Status first = step.Run(**backend);
  const absl::Status second = step.Run(**backend);
  std::byte answer[2];
  const absl::Status third = (*backend)->ReadAnswer(0, 1, answer);
  std::fprintf(stderr, "%s\n", std::string(first.message()).c_str());
  std::exit(first.ok() || second != first || third != first ? 1 : 0);
}

TEST(CudaDeviceError, IsNamedAndStays) {
  if (!CudaDevicePresent()) GTEST_SKIP() << "cuda cannot run here: no device";
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(RunWithoutWeights(), ::testing::ExitedWithCode(0), "cuda: .*cudaErrorIllegalAddress");
}

// The same with a batch behind the one that fails. Neither answer comes, and neither batch's memory
// is still written once its end is known.
[[noreturn]] void FailWithTwoInFlight() {
  const BackendShape shape = Shape();
  absl::StatusOr<std::unique_ptr<Backend>> backend = MakeCudaBackend(shape);
  if (!backend.ok()) std::exit(2);
  Rng rng(1);
  Step first(rng, shape, 0, InputLayout::kHidden, {{.slot = 1, .length = 1}});
  Step second(rng, shape, 0, InputLayout::kHidden, {{.slot = 2, .length = 1}});
  const absl::Status begun = first.Begin(**backend);
  absl::Status status = second.Begin(**backend);
  if (begun.ok()) status = first.End(**backend);
  std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
  const bool stays = second.End(**backend) == status && first.Begin(**backend) == status;
  const bool named = first.fault(0) == RowFault::kDevice && second.fault(0) == RowFault::kDevice;
  backend->reset();
  std::exit(!status.ok() && stays && named ? 0 : 1);
}

TEST(CudaDeviceError, TakesTheBatchBehindAlong) {
  if (!CudaDevicePresent()) GTEST_SKIP() << "cuda cannot run here: no device";
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(FailWithTwoInFlight(), ::testing::ExitedWithCode(0),
              "cuda: .*cudaErrorIllegalAddress");
}

TEST(CudaDeviceError, TooLargePoolsAreRefused) {
  if (!CudaDevicePresent()) GTEST_SKIP() << "cuda cannot run here: no device";
  BackendShape shape = Shape();
  shape.slots = 1 << 24;
  const absl::StatusOr<std::unique_ptr<Backend>> backend = MakeCudaBackend(shape);
  EXPECT_EQ(backend.status().code(), absl::StatusCode::kResourceExhausted) << backend.status();
  EXPECT_EQ(cudaPeekAtLastError(), cudaSuccess) << "the next launch would be blamed for it";
}

TEST(CudaDeviceError, TooMuchPinnedMemoryIsRefused) {
  if (!CudaDevicePresent()) GTEST_SKIP() << "cuda cannot run here: no device";
  const auto memory = cuda::Memory::Make(cuda::Memory::Place::kPinned, size_t{1} << 46);
  EXPECT_EQ(memory.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(memory.status().message()), ::testing::HasSubstr("pinned host memory"));
  EXPECT_EQ(cudaPeekAtLastError(), cudaSuccess) << "the next launch would be blamed for it";
}

}  // namespace
}  // namespace gdn::test
