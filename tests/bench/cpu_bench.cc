// Times one whole layer (hidden states in and out) on the CPU backend: hidden 2048, 16/32 heads,
// K = V = 128. A prefill is one sequence from an empty state, a decode one token of each row.
// With --json one object a line, as cpu_peers.py reads them: threads, dtype, kind, n, ms (median).
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/dtype.h"
#include "tests/bench/random_layer.h"

ABSL_FLAG(std::vector<std::string>, threads, std::vector<std::string>({"1", "0"}),
          "numbers of threads; 0: all cores");
ABSL_FLAG(std::vector<std::string>, dtypes, std::vector<std::string>({"fp32", "bf16"}),
          "types of inputs and weights: fp32, bf16, fp16");
ABSL_FLAG(std::vector<std::string>, cases,
          std::vector<std::string>({"prefill:64", "prefill:512", "prefill:2048", "decode:1",
                                    "decode:8", "decode:32"}),
          "prefill:TOKENS and decode:ROWS");
ABSL_FLAG(int, repeats, 9, "timed calls of each case");
ABSL_FLAG(bool, json, false, "one JSON object a line instead of a table");

namespace gdn {
namespace {

constexpr int kMaxTokens = 2048;
constexpr int kMaxRows = 32;

BackendShape Shape(DType io) {
  return {.geometry = {.hidden_size = 2048,
                       .key_heads = 16,
                       .value_heads = 32,
                       .key_dim = 128,
                       .value_dim = 128},
          .io = io,
          .layers = 1,
          .slots = kMaxRows,
          .max_rows = kMaxRows,
          .max_tokens = kMaxTokens,
          .max_decode_tokens = 1};
}

// `rows` rows of `length` tokens, in slots 0, 1, …
class Step {
 public:
  Step(const BackendShape& shape, int rows, int64_t length, bool has_state)
      : offsets_(static_cast<size_t>(rows) + 1),
        slots_(static_cast<size_t>(rows)),
        has_state_(static_cast<size_t>(rows), has_state),
        keep_(static_cast<size_t>(rows), 0),
        faults_(static_cast<size_t>(rows)) {
    for (size_t i = 0; i < offsets_.size(); ++i) offsets_[i] = static_cast<int64_t>(i) * length;
    std::iota(slots_.begin(), slots_.end(), 0);
    Random random;
    const int64_t elements = offsets_.back() * shape.geometry.hidden_size;
    input_ = Tensor(random, shape.io, elements, 1.7f);
    output_.resize(input_.size());
    piece_ = {reinterpret_cast<const char*>(input_.data()), input_.size()};
    part_ = {.tokens = offsets_.back(), .input = {&piece_, 1}, .output = output_.data()};
  }

  void Run(Backend& backend) {
    Require(backend.Run({.offsets = offsets_,
                         .slots = slots_,
                         .has_initial_state = has_state_,
                         .keep_answer = keep_,
                         .parts = {&part_, 1}},
                        faults_));
    for (RowFault fault : faults_) {
      if (fault != RowFault::kNone) Require(absl::InternalError("a row was not computed"));
    }
  }

 private:
  std::vector<int64_t> offsets_;
  std::vector<int32_t> slots_;
  std::vector<uint8_t> has_state_;
  std::vector<uint8_t> keep_;
  std::vector<RowFault> faults_;
  std::vector<std::byte> input_;
  std::vector<std::byte> output_;
  std::string_view piece_;
  BatchPart part_;
};

double MedianMs(Step& step, Backend& backend, int repeats) {
  using Clock = std::chrono::steady_clock;
  step.Run(backend);
  std::vector<double> times;
  for (int i = 0; i < repeats; ++i) {
    const Clock::time_point begin = Clock::now();
    step.Run(backend);
    times.push_back(std::chrono::duration<double, std::milli>(Clock::now() - begin).count());
  }
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  return times[times.size() / 2];
}

double TimeCase(const BackendShape& shape, Backend& backend, bool prefill, int n) {
  const int repeats = absl::GetFlag(FLAGS_repeats);
  if (prefill) {
    Step step(shape, 1, n, false);
    return MedianMs(step, backend, repeats);
  }
  Step(shape, n, 4, false).Run(backend);
  Step step(shape, n, 1, true);
  return MedianMs(step, backend, repeats);
}

void Print(int threads, const std::string& dtype, const std::string& kind, int n, double ms) {
  if (absl::GetFlag(FLAGS_json)) {
    std::printf("{\"threads\": %d, \"dtype\": \"%s\", \"kind\": \"%s\", \"n\": %d, \"ms\": %.3f}\n",
                threads, dtype.c_str(), kind.c_str(), n, ms);
  } else {
    std::printf("threads %2d  %s  %-7s %5d  %9.2f ms\n", threads, dtype.c_str(), kind.c_str(), n,
                ms);
  }
  std::fflush(stdout);
}

int Number(const std::string& text) {
  int n = 0;
  if (!absl::SimpleAtoi(text, &n)) Require(absl::InvalidArgumentError("not a number"));
  return n;
}

DType TypeOf(const std::string& name) {
  return name == "fp32" ? DType::kFp32 : name == "fp16" ? DType::kFp16 : DType::kBf16;
}

void RunAll(int threads, const std::string& dtype) {
  const BackendShape shape = Shape(TypeOf(dtype));
  const auto backend = MakeCpuBackend(shape, threads);
  LoadRandomLayer(shape, *backend);
  const int shown = threads > 0 ? threads : static_cast<int>(std::thread::hardware_concurrency());
  for (const std::string& name : absl::GetFlag(FLAGS_cases)) {
    const std::vector<std::string> parts = absl::StrSplit(name, ':');
    const int n = Number(parts.back());
    const double ms = TimeCase(shape, *backend, parts.front() == "prefill", n);
    Print(shown, dtype, parts.front(), n, ms);
  }
}

}  // namespace
}  // namespace gdn

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  for (const std::string& threads : absl::GetFlag(FLAGS_threads)) {
    for (const std::string& dtype : absl::GetFlag(FLAGS_dtypes)) {
      gdn::RunAll(gdn::Number(threads), dtype);
    }
  }
  return 0;
}
