// What each way from a caller to the engine costs on one machine: a Decode of 1 and of 128 rows and
// a Prefill of 8,192 tokens at hidden 2048 in bf16, answers kept for replay, one step at a time;
// with a backend that only copies, and in a CUDA build on a machine with a GPU with the CUDA
// backend. Calls go over a Unix socket or TCP; beside them an echo of an empty message and one of
// the same bytes, and such echoes that answer as late as a step would. Steps of one way follow one
// another, as those of a pass do, so that whoever spins for the next one is awake: blocks of 20
// decodes or 4 prefills, each after a quarter as many that do not count, and the blocks of the ways
// in turn. With the CUDA backend the step's time on the device, by events, is measured before, and
// what the ways add to it is held against the targets.
//
//   planes_bench [--runs=N] [--null=false]
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <map>
#include <memory>
#include <string>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "tests/bench/planes_device.h"
#include "tests/bench/planes_ways.h"
#include "tests/testing/null_backend.h"

ABSL_FLAG(bool, null, true, "with the backend that only copies, too");
ABSL_FLAG(int, runs, 1000, "decodes by each way; prefills are a twentieth of it");

namespace gdn {
namespace {

constexpr int64_t kMostRows = 128;
constexpr int64_t kPrompt = 8192;

using Found = std::map<std::string, WayTime>;

const BackendShape kShape = NullShape(/*slots=*/2 * kMostRows);

void Check(const char* what, double value, double limit, bool at_least = false) {
  const bool holds = at_least ? value >= limit : value <= limit;
  std::printf("  %-56s %7.2f, at %s %.2f: %s\n", what, value, at_least ? "least" : "most", limit,
              holds ? "yes" : "NO");
}

// What a call adds to an echo that sleeps as long as a step takes: whoever wakes then wakes later
// than from a short sleep.
void JudgeLate(Found& ways, double limit) {
  Check("call / late echo", ways["call, inline"].p50 / ways["late echo"].p50, limit);
  Check("call / late echo, TCP", ways["call, inline, TCP"].p50 / ways["late echo, TCP"].p50, limit);
}

void JudgeDecode(int64_t rows, Found& ways, const StepTimes& step) {
  const double own = step.device;
  if (rows == kMostRows) {
    JudgeLate(ways, 1.15);
    Check("call / (echo of the same bytes + device)",
          ways["call, inline"].p50 / (ways["echo, same bytes"].p50 + own), 1.15);
    Check("call / (echo of the same bytes + device), TCP",
          ways["call, inline, TCP"].p50 / (ways["echo, same bytes, TCP"].p50 + own), 1.15);
  }
  Check("shared memory - (empty echo + device), us",
        ways["call, shared memory"].p50 - ways["echo, empty"].p50 - own, 40);
  Check("shared memory - late empty echo, us",
        ways["call, shared memory"].p50 - ways["late echo, empty"].p50, 40);
  Check("ring - device, us", ways["ring"].p50 - own, rows == 1 ? 12 : 25);
  Check("ring, p99 / p50", ways["ring"].p99 / ways["ring"].p50, 2);
}

void JudgePrefill(Found& ways, const StepTimes& step) {
  JudgeLate(ways, 1.2);
  Check("call / (echo of the same bytes + device)",
        ways["call, inline"].p50 / (ways["echo, same bytes"].p50 + step.device), 1.2);
  Check("call / (echo of the same bytes + device), TCP",
        ways["call, inline, TCP"].p50 / (ways["echo, same bytes, TCP"].p50 + step.device), 1.2);
  Check("shared memory, tokens a second / in process",
        step.in_process / ways["call, shared memory"].p50, 0.7, /*at_least=*/true);
}

// The server, its callers, and a region with a ring, whose thread would take the callers' messages
// off a channel that it shared with them.
class Planes {
 public:
  explicit Planes(PlanesBackend made)
      : server_({prefix_ + "_service", "127.0.0.1:0"}, kShape, std::move(made)),
        echo_(prefix_ + "_echo"),
        ring_channel_(Connect(server_.addresses().front())),
        callers_{Caller(Connect(prefix_ + "_echo")), Caller(Connect(echo_.tcp_address())),
                 Caller(Connect(server_.addresses().front())),
                 Caller(Connect(server_.addresses().back()))} {
    const size_t tensors = size_t{2} * kPrompt * kShape.geometry.hidden_size * 2;
    client::Error error = client::Region::Create(
        ring_channel_, client::Ring::BytesOf(kRingQueue, kRingQueue) + tensors, &region_);
    if (error.ok()) {
      error = client::Ring::Open(ring_channel_, *region_, kRingQueue, kRingQueue, &ring_);
    }
    if (!error.ok()) Fail(client::ToString(error));
    std::printf("the device reaches the region by itself: %s\n",
                server_.Reaches(region_->name()) ? "yes" : "no");
  }

  // `device`: µs by which the late echo is late.
  Found Measure(int64_t rows, int64_t tokens, double device = 0) {
    echo_.set_wait(std::chrono::nanoseconds(std::llround(1000 * device)));
    const int runs = absl::GetFlag(FLAGS_runs) / (tokens > rows ? 20 : 1);
    return Ways(rows, tokens, &server_.backend(), &callers_, *region_, ring_.get()).Measure(runs);
  }

 private:
  const std::string prefix_ = "unix:/tmp/gdn_planes_bench_" + std::to_string(getpid());
  PlanesServer server_;
  Echo echo_;
  std::shared_ptr<grpc::Channel> ring_channel_;
  Callers callers_;
  std::unique_ptr<client::Region> region_;
  std::unique_ptr<client::Ring> ring_;
};

void PrintHead(const char* backend) {
  std::printf("\nbackend %s\n%6s  %-22s %9s %9s %9s\n", backend, "tokens", "us", "p50", "p99",
              "beside");
  std::fflush(stdout);
}

void MeasureNull() {
  PrintHead("null");
  PlanesBackend made;
  made.backend = std::make_unique<NullBackend>(kShape);
  Planes planes(std::move(made));
  planes.Measure(1, 1);
  planes.Measure(kMostRows, kMostRows);
  planes.Measure(1, kPrompt);
}

StepTimes PrintStep(const PlanesDevice& device, int64_t rows, int64_t tokens) {
  const StepTimes step = device.TimeStep(rows, tokens);
  std::printf("%6lld  %-22s %9.1f (its kernels %.1f)\n", static_cast<long long>(tokens),
              "step on the device", step.device, step.kernels);
  std::printf("%6lld  %-22s %9.1f\n", static_cast<long long>(tokens), "in process",
              step.in_process);
  return step;
}

void MeasureDevice() {
  PrintHead("cuda");
  const PlanesDevice device(kShape);
  const StepTimes one = PrintStep(device, 1, 1);
  const StepTimes most = PrintStep(device, kMostRows, kMostRows);
  const StepTimes prompt = PrintStep(device, 1, kPrompt);
  Planes planes(device.MakeBackend());
  Found found = planes.Measure(1, 1, one.device);
  JudgeDecode(1, found, one);
  found = planes.Measure(kMostRows, kMostRows, most.device);
  JudgeDecode(kMostRows, found, most);
  found = planes.Measure(1, kPrompt, prompt.device);
  JudgePrefill(found, prompt);
}

int Main() {
  TuneProcess();
  if (absl::GetFlag(FLAGS_null)) MeasureNull();
  if (HaveDevice()) MeasureDevice();
  return 0;
}

}  // namespace
}  // namespace gdn

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  return gdn::Main();
}
