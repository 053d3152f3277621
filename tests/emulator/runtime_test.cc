// What becomes of the backend where the runtime or cuBLASLt refuses: it says so, and all it took is
// given back.
#include "tests/emulator/runtime.h"

#include <gtest/gtest.h>

#include "kernels/cuda/backend/cuda_backend.h"
#include "kernels/cuda/backend/projection.h"
#include "tests/testing/layer_case.h"
#include "tests/testing/step.h"

namespace gdn::test {
namespace {

using emulator::cublas_lt;
using emulator::memory;

BackendShape Shape() {
  BackendShape shape = SmallShape();
  shape.geometry.hidden_size = shape.geometry.key_dim = shape.geometry.value_dim = 128;
  shape.io = DType::kBf16;
  return shape;
}

// Refuses each of the first, second… that `make` takes, until one attempt takes less.
template <typename F>
int RefuseEach(emulator::Resources& resources, absl::StatusCode expected, F&& make) {
  const int held_memory = memory.held;
  const int held_by_cublas = cublas_lt.held;
  for (int refused = 0;; ++refused) {
    resources.until_refused = refused;
    const absl::Status status = make();
    EXPECT_EQ(memory.held, held_memory);
    EXPECT_EQ(cublas_lt.held, held_by_cublas);
    EXPECT_EQ(cudaPeekAtLastError(), cudaSuccess) << "the next launch would be blamed for it";
    const bool was_refused = resources.until_refused < 0;
    resources.until_refused = -1;
    EXPECT_EQ(status.code(), was_refused ? expected : absl::StatusCode::kOk) << status;
    if (!was_refused || ::testing::Test::HasFailure()) return refused;
  }
}

absl::Status MakeProjection() { return cuda::Projection::Make(DType::kBf16, 64, 64).status(); }

absl::Status MakeBackend() { return MakeCudaBackend(Shape()).status(); }

TEST(Refusals, AProjectionWithoutCublasLt) {
  EXPECT_EQ(RefuseEach(cublas_lt, absl::StatusCode::kFailedPrecondition, MakeProjection), 4);
  EXPECT_EQ(RefuseEach(memory, absl::StatusCode::kResourceExhausted, MakeProjection), 1);
}

TEST(Refusals, ABackendWithoutCublasLt) {
  EXPECT_EQ(RefuseEach(cublas_lt, absl::StatusCode::kFailedPrecondition, MakeBackend), 8);
}

TEST(Refusals, ABackendWithoutMemory) {
  EXPECT_GE(RefuseEach(memory, absl::StatusCode::kResourceExhausted, MakeBackend), 5);
}

std::vector<float> Answer(Backend& backend) {
  Rng rng(1);
  Step step(rng, Shape(), 0, InputLayout::kHidden, {{.slot = 1, .length = 3}});
  EXPECT_TRUE(step.Run(backend).ok());
  return step.output(0);
}

// A step of more tokens than go without cuBLASLt, and one of few behind it.
TEST(Refusals, AStepWithoutCublasLt) {
  absl::StatusOr<std::unique_ptr<Backend>> backend = MakeCudaBackend(Shape());
  ASSERT_TRUE(backend.ok()) << backend.status();
  ASSERT_TRUE((*backend)->LoadLayer(0, RandomLayer(1, Shape()).weights()).ok());
  const int held = cublas_lt.held;
  Rng rng(1);
  Step step(rng, Shape(), 0, InputLayout::kHidden, {{.slot = 1, .length = 200}});
  cublas_lt.until_refused = 0;
  const absl::Status refused = step.Run(**backend);
  EXPECT_EQ(refused.code(), absl::StatusCode::kInternal) << refused;
  EXPECT_EQ(cublas_lt.until_refused, -1);
  EXPECT_EQ(cublas_lt.held, held);
  Step after(rng, Shape(), 0, InputLayout::kHidden, {{.slot = 1, .length = 1}});
  EXPECT_EQ(after.Run(**backend), refused) << "the device is lost";
}

// The layer stays as it was loaded before, and may be loaded again.
TEST(Refusals, ALayerWithoutMemory) {
  absl::StatusOr<std::unique_ptr<Backend>> backend = MakeCudaBackend(Shape());
  ASSERT_TRUE(backend.ok()) << backend.status();
  const RandomLayer first(1, Shape());
  const RandomLayer second(2, Shape());
  ASSERT_TRUE((*backend)->LoadLayer(0, first.weights()).ok());
  const std::vector<float> before = Answer(**backend);
  memory.until_refused = 0;
  const absl::Status refused = (*backend)->LoadLayer(0, second.weights());
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted) << refused;
  EXPECT_EQ(cudaPeekAtLastError(), cudaSuccess);
  EXPECT_EQ(Answer(**backend), before);
  ASSERT_TRUE((*backend)->LoadLayer(0, second.weights()).ok());
  EXPECT_NE(Answer(**backend), before);
}

}  // namespace
}  // namespace gdn::test
