// The engine's own time a decode step: everything from Submit to the answer but the backend.
// 1,000 live sequences; rows by slot and epoch with positions and a step id, as an orchestrator
// sends them, without the metrics and with all that the server counts of a call. Then the same
// under overload, a batch at a time from a queue that stays full.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "absl/time/clock.h"
#include "kernels/cpu/cpu_backend.h"
#include "server/engine/engine.h"
#include "server/metrics/engine_meter.h"
#include "server/service/call_meter.h"
#include "tests/bench/null_model.h"
#include "tests/bench/random_layer.h"
#include "tests/testing/null_backend.h"

namespace gdn {
namespace {

constexpr int kSequences = 1000;
constexpr int kSteps = 20000;
constexpr int kBatches = 2000;
constexpr int kLayers = 36;

const BackendShape kShape = NullShape(/*slots=*/1024, kLayers);

using Clock = std::chrono::steady_clock;

double Microseconds(Clock::duration d) {
  return std::chrono::duration<double, std::micro>(d).count();
}

// Adds up the time spent in another backend.
class TimedBackend : public NullBackend {
 public:
  using NullBackend::NullBackend;
  absl::Status Begin(const Batch& batch) override {
    const Clock::time_point begin = Clock::now();
    absl::Status status = NullBackend::Begin(batch);
    spent += Clock::now() - begin;
    return status;
  }
  Clock::duration spent{};
};

struct Sequences {
  std::vector<int32_t> slots;
  std::vector<uint64_t> epochs;
  std::vector<uint64_t> positions;
};

class Bench {
 public:
  // With `counted` everything is counted there.
  explicit Bench(const Readiness* counted)
      : counted_(counted),
        meter_(Observer(counted)),
        backend_(kShape),
        engine_(Options(), &backend_) {}

  void Begin() {
    for (int i = 0; i < kSequences; ++i) {
      auto step = NewStep();
      step->request.request_ids = {"request-" + std::to_string(i)};
      step->request.create = true;
      step->request.token_counts = {0};
      step->done = [this](const Fault&, const StepAnswer& answer) {
        all_.slots.push_back(answer.slots[0]);
        all_.epochs.push_back(answer.epochs[0]);
        all_.positions.push_back(0);
      };
      engine_.Submit(step, absl::Now());
      engine_.Step(absl::Now());
    }
  }

  // Median over kSteps of the time of one step of `rows` rows without the backend's.
  double OwnTime(int rows) {
    const std::string tensor(static_cast<size_t>(rows) * 4096, '\0');
    std::vector<double> times;
    for (int i = 0; i < kSteps; ++i) {
      std::shared_ptr<Step> step = Decode(rows, tensor);
      backend_.spent = {};
      const Clock::time_point begin = Clock::now();
      if (counted_ != nullptr) call_.emplace(*counted_, Method::kDecode, no_bytes_);
      engine_.Submit(std::move(step), absl::Now());
      engine_.Step(absl::Now());
      times.push_back(Microseconds(Clock::now() - begin - backend_.spent));
    }
    std::nth_element(times.begin(), times.begin() + kSteps / 2, times.end());
    return times[kSteps / 2];
  }

  // Median time of a batch, without the backend's, while `waiting` steps of `rows` rows wait, turn
  // by turn at each of `layers`.
  double OwnTimeOfABatch(int waiting, int rows, int layers) {
    const std::string tensor(static_cast<size_t>(rows) * 4096, '\0');
    std::vector<double> times;
    const auto send = [&] {
      std::shared_ptr<Step> step = Decode(rows, tensor);
      step->request.layer = static_cast<uint32_t>(next_layer_++ % layers);
      step->request.positions.clear();
      step->done = [this](const Fault& fault, const StepAnswer&) {
        if (!fault.ok()) std::abort();
        ++answered_;
      };
      engine_.Submit(std::move(step), absl::Now());
    };
    for (int i = 0; i < waiting; ++i) send();
    for (int i = 0; i < kBatches; ++i) {
      answered_ = 0;
      backend_.spent = {};
      const Clock::time_point begin = Clock::now();
      engine_.Step(absl::Now());
      times.push_back(Microseconds(Clock::now() - begin - backend_.spent));
      for (int answered = answered_; answered > 0; --answered) send();
    }
    while (engine_.waiting() > 0) engine_.Step(absl::Now());
    std::nth_element(times.begin(), times.begin() + kBatches / 2, times.end());
    return times[kBatches / 2];
  }

 private:
  std::shared_ptr<Step> NewStep() {
    auto step = std::make_shared<Step>();
    step->request.step_id = ++step_id_;
    step->request.input_layout = v1::INPUT_LAYOUT_HIDDEN;
    step->allocate = [this](size_t bytes) {
      if (output_.size() < bytes) output_.resize(bytes);
      return OutputBuffer{nullptr, output_.data(), bytes};
    };
    return step;
  }

  std::shared_ptr<Step> Decode(int rows, const std::string& tensor) {
    std::shared_ptr<Step> step = NewStep();
    for (int row = 0; row < rows; ++row) {
      const size_t i = static_cast<size_t>(next_++ % kSequences);
      step->request.slots.push_back(all_.slots[i]);
      step->request.epochs.push_back(all_.epochs[i]);
      step->request.positions.push_back(all_.positions[i]++);
    }
    step->request.input = {tensor};
    step->done = [this](const Fault& fault, const StepAnswer&) {
      if (!fault.ok()) std::abort();
      if (call_) call_->End(fault, no_bytes_);
    };
    return step;
  }

  static std::unique_ptr<EngineMeter> Observer(const Readiness* counted) {
    return counted == nullptr ? nullptr : std::make_unique<EngineMeter>(counted->metrics.get());
  }
  EngineOptions Options() {
    EngineOptions options = NullOptions(kShape);
    options.observer = meter_.get();
    return options;
  }

  const Readiness* const counted_;
  const std::unique_ptr<EngineMeter> meter_;
  std::optional<CallMeter> call_;
  grpc::ByteBuffer no_bytes_;
  TimedBackend backend_;
  Engine engine_;
  Sequences all_;
  std::vector<std::byte> output_;
  uint64_t step_id_ = 0;
  uint64_t next_ = 0;
  uint64_t next_layer_ = 0;
  int answered_ = 0;
};

// Median of a decode of one row on the CPU backend, the layer alone.
double LayerTime() {
  const BackendShape shape = NullShape(/*slots=*/1);
  const std::unique_ptr<Backend> backend = MakeCpuBackend(shape, /*threads=*/0);
  LoadRandomLayer(shape, *backend);
  const std::string input(4096, '\0');
  std::vector<std::byte> output(4096);
  const std::string_view piece = input;
  const BatchPart part = {.tokens = 1, .input = {&piece, 1}, .output = output.data()};
  const int64_t offsets[] = {0, 1};
  const int32_t slot = 0;
  const uint8_t no = 0;
  RowFault fault;
  std::vector<double> times;
  for (int i = 0; i < 200; ++i) {
    const Clock::time_point begin = Clock::now();
    Require(backend->Run({.offsets = offsets,
                          .slots = {&slot, 1},
                          .has_initial_state = {&no, 1},
                          .keep_answer = {&no, 1},
                          .parts = {&part, 1}},
                         {&fault, 1}));
    times.push_back(Microseconds(Clock::now() - begin));
  }
  std::nth_element(times.begin(), times.begin() + 100, times.end());
  return times[100];
}

int Main() {
  const Readiness counted;
  Bench bench(nullptr), counting(&counted);
  bench.Begin();
  counting.Begin();
  std::printf("engine_bench: %d live sequences, median of %d steps, the backend's time taken out\n",
              kSequences, kSteps);
  std::printf("%8s %12s %16s %14s\n", "rows", "us a step", "us a row beyond 1", "with metrics");
  double one = 0, metrics = 0;
  for (const int rows : {1, 8, 32, 128, 256}) {
    const double time = bench.OwnTime(rows);
    const double with = counting.OwnTime(rows);
    if (rows == 1) one = time, metrics = with - time;
    std::printf("%8d %12.2f %16.3f %14.2f\n", rows, time,
                rows == 1 ? 0.0 : (time - one) / (rows - 1), with);
  }
  const double layer = LayerTime();
  std::printf(
      "metrics: %.2f us a step of 1 row, %.3f %% of %.0f us, a decode of it on the CPU backend\n",
      metrics, 100 * metrics / (layer + one), layer + one);
  std::printf("\n%8s %8s %8s %12s\n", "waiting", "rows", "layers", "us a batch");
  for (const auto& [waiting, rows, layers] : {std::tuple(1000, 1, 1),
                                              {1000, 1, kLayers},
                                              {64, 128, 1},
                                              {64, 128, kLayers},
                                              {1000, 128, kLayers}}) {
    std::printf("%8d %8d %8d %12.1f\n", waiting, rows, layers,
                bench.OwnTimeOfABatch(waiting, rows, layers));
  }
  return 0;
}

}  // namespace
}  // namespace gdn

int main() { return gdn::Main(); }
