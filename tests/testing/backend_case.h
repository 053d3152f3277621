// Backends under test, and a backend side by side with the layer oracle: the same steps on both.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cpu/oracle/layer.h"
#include "tests/testing/compare.h"
#include "tests/testing/layer_case.h"
#include "tests/testing/step.h"
#ifdef GDN_TEST_CUDA
#include "kernels/cuda/backend/cuda_backend.h"
#else
#include "kernels/cpu/cpu_backend.h"
#endif

namespace gdn::test {

struct BackendImplementation {
  const char* name;
  std::unique_ptr<Backend> (*make)(const BackendShape&);
  bool (*available)();
};

// The backend under test: the host's, or the device's in a program of its own.
#ifdef GDN_TEST_CUDA
inline constexpr BackendImplementation kBackend = {
    "cuda",
    [](const BackendShape& shape) {
      absl::StatusOr<std::unique_ptr<Backend>> backend = MakeCudaBackend(shape);
      EXPECT_TRUE(backend.ok()) << backend.status();
      return *std::move(backend);
    },
    CudaDevicePresent};
#else
inline constexpr BackendImplementation kBackend = {
    "cpu", [](const BackendShape& shape) { return MakeCpuBackend(shape, 2); }, [] { return true; }};
#endif

// Skips where the backend cannot run.
class BackendTest : public ::testing::TestWithParam<const BackendImplementation*> {
 protected:
  void SetUp() override {
    if (!GetParam()->available()) GTEST_SKIP() << GetParam()->name << " cannot run here: no device";
  }
};

inline std::string BackendName(const ::testing::TestParamInfo<const BackendImplementation*>& info) {
  return info.param->name;
}

// What a whole layer in `type` may lose against one in double.
inline Tolerance LayerTolerance(DType type) {
  switch (type) {
    case DType::kBf16:
      return {1.5e-1, 1.5e-1, 2e-2};
    case DType::kFp16:
      return {2e-2, 2e-2, 4e-3};
    case DType::kFp32:
      break;
  }
  return {1e-3, 1e-4, 1e-5};
}

constexpr InputLayout kLayouts[] = {InputLayout::kHidden, InputLayout::kQkvBA, InputLayout::kQkvZBA,
                                    InputLayout::kQkvBetaG, InputLayout::kQkvZBetaG};

// A backend with random layers loaded.
inline std::unique_ptr<Backend> MakeLoaded(const BackendImplementation& implementation,
                                           const BackendShape& shape) {
  std::unique_ptr<Backend> backend = implementation.make(shape);
  for (int layer = 0; layer < shape.layers; ++layer) {
    const absl::Status status = backend->LoadLayer(layer, RandomLayer(layer, shape).weights());
    EXPECT_TRUE(status.ok()) << status;
  }
  return backend;
}

class Twin {
 public:
  Twin(const BackendImplementation& implementation, const BackendShape& shape)
      : shape_(shape), backend_(MakeLoaded(implementation, shape)) {
    for (int layer = 0; layer < shape.layers; ++layer) {
      layers_.emplace_back(shape.geometry, RandomLayer(layer, shape).weights(), shape.io);
    }
  }

  Backend& backend() { return *backend_; }
  const BackendShape& shape() const { return shape_; }

  // Whether the slot holds a sequence at this layer.
  bool Holds(int layer, int32_t slot) const { return states_.count({layer, slot}) > 0; }

  // A row that goes on where the slot's sequence stands, or begins one.
  StepRow Next(int layer, int32_t slot, int64_t length) const {
    return {.slot = slot, .length = length, .has_initial_state = Holds(layer, slot)};
  }

  // The next step of the slot begins anew, over what it holds.
  void Forget(int layer, int32_t slot) { states_.erase({layer, slot}); }

  // Runs the step on the backend and its rows without an expected fault on the oracle; outputs must
  // agree, those of padding be zero. `expected` [rows] are the faults; none where it is empty.
  void Run(Step& step, std::vector<RowFault> expected = {}) {
    expected.resize(step.rows().size(), RowFault::kNone);
    const absl::Status status = step.Run(*backend_);
    ASSERT_TRUE(status.ok()) << status;
    for (size_t row = 0; row < step.rows().size(); ++row) {
      ASSERT_EQ(step.fault(row), expected[row]) << "row " << row;
      if (expected[row] == RowFault::kNone) Compare(step, row);
    }
  }

 private:
  void Compare(const Step& step, size_t row) {
    const StepRow& r = step.rows()[row];
    if (r.slot < 0) {
      EXPECT_TRUE(AllZero(step.output(row))) << "padding row " << row;
      return;
    }
    if (r.length == 0) return;
    const oracle::Layer& layer = layers_[step.layer()];
    oracle::LayerState& state = states_[{step.layer(), r.slot}];
    if (!r.has_initial_state) state = layer.EmptyState();
    const std::vector<double> truth = layer.Run(step.layout(), step.RowInput(row), state);
    EXPECT_TRUE(Close(step.output(row), truth,
                      {r.length, OutputWidth(shape_.geometry, step.layout())},
                      LayerTolerance(shape_.state == DType::kBf16 ? DType::kBf16 : shape_.io)))
        << "row " << row << ", slot " << r.slot << ", layout " << static_cast<int>(step.layout());
  }

  BackendShape shape_;
  std::unique_ptr<Backend> backend_;
  std::vector<oracle::Layer> layers_;
  std::map<std::pair<int, int32_t>, oracle::LayerState> states_;
};

}  // namespace gdn::test

#define GDN_ON_EVERY_BACKEND(Suite)                                                    \
  INSTANTIATE_TEST_SUITE_P(Backends, Suite, ::testing::Values(&::gdn::test::kBackend), \
                           ::gdn::test::BackendName)
