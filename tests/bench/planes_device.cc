#include "tests/bench/planes_device.h"

#ifdef GDN_HAVE_CUDA
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "kernels/cuda/backend/cuda_backend.h"
#include "kernels/cuda/backend/pinned_pool.h"
#include "kernels/cuda/backend/shared_memory.h"
#include "tests/bench/bf16_noise.h"
#include "tests/bench/cuda/device_step.h"
#include "tests/testing/layer_case.h"
#endif

namespace gdn {

#ifdef GDN_HAVE_CUDA
namespace {

template <typename T>
T Require(absl::StatusOr<T> made) {
  if (!made.ok()) Fail(std::string(made.status().message()));
  return *std::move(made);
}

std::unique_ptr<Backend> Loaded(const BackendShape& shape, const LayerWeights& weights) {
  std::unique_ptr<Backend> backend = Require(MakeCudaBackend(shape));
  if (!backend->LoadLayer(0, weights).ok()) Fail("the layer cannot be loaded");
  return backend;
}

// µs of a step by the backend, with tensors in ordinary memory.
double InProcess(Backend* backend, const Geometry& geometry, int64_t rows, int64_t tokens,
                 int runs) {
  std::vector<std::byte> input(static_cast<size_t>(tokens * geometry.hidden_size * 2));
  FillWithBf16(input);
  std::vector<std::byte> output(input.size());
  const std::string_view piece(reinterpret_cast<const char*>(input.data()), input.size());
  const BatchPart part = {.tokens = tokens, .input = {&piece, 1}, .output = output.data()};
  std::vector<int64_t> offsets = {0};
  std::vector<int32_t> slots;
  for (int64_t row = 0; row < rows; ++row) {
    slots.push_back(static_cast<int32_t>(row));
    offsets.push_back((row + 1) * (tokens / rows));
  }
  const std::vector<uint8_t> yes(slots.size(), 1);
  std::vector<RowFault> faults(slots.size());
  const Batch batch = {.offsets = offsets,
                       .slots = slots,
                       .has_initial_state = yes,
                       .keep_answer = tokens == rows ? yes : std::vector<uint8_t>(slots.size()),
                       .parts = {&part, 1}};
  std::vector<double> times;
  for (int i = 0; i < runs + 5; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    if (!backend->Run(batch, faults).ok()) Fail("the backend failed");
    const std::chrono::duration<double, std::micro> time = std::chrono::steady_clock::now() - begin;
    if (i >= 5) times.push_back(time.count());
  }
  std::nth_element(times.begin(), times.begin() + runs / 2, times.end());
  return times[static_cast<size_t>(runs / 2)];
}

}  // namespace

bool HaveDevice() { return CudaDevicePresent(); }

struct PlanesDevice::Layer : test::RandomLayer {
  using RandomLayer::RandomLayer;
};

PlanesDevice::PlanesDevice(const BackendShape& shape)
    : shape_(shape), layer_(std::make_unique<Layer>(1, shape)) {}

PlanesBackend PlanesDevice::MakeBackend() const {
  constexpr size_t kPool = size_t{128} << 20;
  PlanesBackend made;
  made.backend = Loaded(shape_, layer_->weights());
  made.opener = MakeCudaMemoryOpener();
  made.input_pool = Require(MakePinnedPool(kPool));
  made.output_pool = Require(MakePinnedPool(kPool));
  made.prefill_chunk = 1024;  // the server's own
  return made;
}

StepTimes PlanesDevice::TimeStep(int64_t rows, int64_t tokens) const {
  const int runs = tokens > rows ? 30 : 300;
  const LayerWeights weights = layer_->weights();
  const bench::DeviceTime device = bench::TimeOnDevice(shape_, weights, rows, tokens, runs);
  const std::unique_ptr<Backend> backend = Loaded(shape_, weights);
  return {device.step, device.kernels,
          InProcess(backend.get(), shape_.geometry, rows, tokens, runs)};
}
#else
bool HaveDevice() { return false; }

struct PlanesDevice::Layer {};

PlanesDevice::PlanesDevice(const BackendShape& shape) : shape_(shape) {}
PlanesBackend PlanesDevice::MakeBackend() const { return {}; }
StepTimes PlanesDevice::TimeStep(int64_t, int64_t) const { return {}; }
#endif

PlanesDevice::~PlanesDevice() = default;

}  // namespace gdn
