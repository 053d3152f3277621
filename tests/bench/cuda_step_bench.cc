// Whole steps by the CUDA backend, called in process: hidden 2048, 16/32 heads, bf16, fp32 state,
// hidden states in and out. µs of a step, median: `alone`, a batch at a time, from Begin to the end
// of End; `in turn`, each batch begun while the one before runs. First with tensors in ordinary
// memory, then in memory that the copy engines reach.
//
//   cuda_step_bench [--runs=N]
#include <cuda_runtime_api.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "kernels/cuda/backend/cuda_backend.h"
#include "tests/testing/layer_case.h"

ABSL_FLAG(int, runs, 200, "steps that are timed");

namespace gdn {
namespace {

constexpr int kLayers = 5;  // that steps rotate over: 340 MB of weights

void Check(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
  std::exit(1);
}

BackendShape ShapeFor(int64_t rows, int64_t tokens) {
  BackendShape shape;
  shape.geometry = {
      .hidden_size = 2048, .key_heads = 16, .value_heads = 32, .key_dim = 128, .value_dim = 128};
  shape.io = DType::kBf16;
  shape.layers = kLayers;
  shape.slots = static_cast<int>(2 * rows);
  shape.max_rows = rows;
  shape.max_tokens = tokens;
  shape.max_decode_tokens = 1;
  return shape;
}

// A batch of rows of equal length, from `first_slot` on, and its tensors.
class Step {
 public:
  Step(const BackendShape& shape, int32_t first_slot, bool direct)
      : has_state_(static_cast<size_t>(shape.max_rows), shape.max_rows == shape.max_tokens),
        direct_(direct) {
    test::Rng rng(7);
    const int64_t rows = shape.max_rows, tokens = shape.max_tokens;
    input_ = test::Tensor::Normal(rng, shape.io, tokens * shape.geometry.hidden_size);
    output_ = input_;
    for (int64_t row = 0; row < rows; ++row) {
      slots_.push_back(first_slot + static_cast<int32_t>(row));
      offsets_.push_back((row + 1) * (tokens / rows));
    }
    piece_ = {static_cast<const char*>(input_.data()), input_.bytes().size()};
    part_.tokens = tokens;
    part_.input = {&piece_, 1};
    part_.output = static_cast<std::byte*>(output_.data());
    part_.direct_input = part_.direct_output = direct;
    Register(direct);
  }
  Step(const Step&) = delete;
  Step& operator=(const Step&) = delete;
  ~Step() {
    if (!direct_) return;
    for (test::Tensor* tensor : {&input_, &output_}) cudaHostUnregister(tensor->data());
  }

  void Begin(Backend& backend, int layer) {
    Batch batch;
    batch.layer = layer;
    batch.offsets = offsets_;
    batch.slots = slots_;
    batch.has_initial_state = batch.keep_answer = has_state_;
    batch.parts = {&part_, 1};
    Check(backend.Begin(batch));
  }

  void End(Backend& backend) {
    std::vector<RowFault> faults(slots_.size());
    Check(backend.End(faults));
    for (const RowFault fault : faults) {
      if (fault != RowFault::kNone) Check(absl::InternalError("a row failed"));
    }
  }

 private:
  void Register(bool direct) {
    if (!direct) return;
    for (test::Tensor* tensor : {&input_, &output_}) {
      if (cudaHostRegister(tensor->data(), tensor->bytes().size(), cudaHostRegisterDefault) !=
          cudaSuccess) {
        Check(absl::ResourceExhaustedError("no memory could be registered"));
      }
    }
  }

  test::Tensor input_, output_;
  std::vector<int64_t> offsets_ = {0};
  std::vector<int32_t> slots_;
  std::vector<uint8_t> has_state_;
  std::string_view piece_;
  BatchPart part_;
  bool direct_;
};

// Median in µs of what `step(i)` takes.
double Median(const std::function<void(int)>& step) {
  const int runs = absl::GetFlag(FLAGS_runs), warm_ups = 20;
  std::vector<double> micros;
  for (int i = 0; i < warm_ups + runs; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    step(i);
    const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - begin;
    if (i >= warm_ups) micros.push_back(took.count());
  }
  std::nth_element(micros.begin(), micros.begin() + runs / 2, micros.end());
  return micros[static_cast<size_t>(runs / 2)];
}

struct Times {
  double alone = 0;
  double in_turn = 0;
};

Times TimesOf(Backend& backend, const BackendShape& shape, bool direct) {
  Step first(shape, 0, direct), second(shape, static_cast<int32_t>(shape.max_rows), direct);
  Step* const steps[] = {&first, &second};
  Times times;
  times.alone = Median([&](int i) {
    first.Begin(backend, i % kLayers);
    first.End(backend);
  });
  second.Begin(backend, 0);
  int next = 0;
  times.in_turn = Median([&](int i) {
    steps[next]->Begin(backend, i % kLayers);
    next ^= 1;
    steps[next]->End(backend);
  });
  steps[next ^ 1]->End(backend);
  return times;
}

void Run(const char* kind, int64_t rows, int64_t tokens) {
  const BackendShape shape = ShapeFor(rows, tokens);
  auto backend = MakeCudaBackend(shape);
  Check(backend.status());
  const test::RandomLayer layer(1, shape);
  for (int i = 0; i < kLayers; ++i) Check((*backend)->LoadLayer(i, layer.weights()));
  const Times plain = TimesOf(**backend, shape, false);
  const Times direct = TimesOf(**backend, shape, true);
  std::printf("%-8s %6lld %10.1f %10.1f %10.1f %10.1f\n", kind, static_cast<long long>(tokens),
              plain.alone, plain.in_turn, direct.alone, direct.in_turn);
  std::fflush(stdout);
}

}  // namespace
}  // namespace gdn

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  if (!gdn::CudaDevicePresent()) {
    std::printf("no Hopper GPU: nothing to measure\n");
    return 0;
  }
  std::printf("%-8s %6s %10s %10s %10s %10s\n", "step", "tokens", "alone", "in turn", "direct",
              "in turn");
  for (int64_t rows : {1, 8, 32, 128, 256}) gdn::Run("decode", rows, rows);
  for (int64_t tokens : {1024, 8192}) gdn::Run("prefill", 1, tokens);
  return 0;
}
