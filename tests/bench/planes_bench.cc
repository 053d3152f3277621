// What each way from a caller to the engine costs on one machine: a Decode of 1, 32 and 128 rows
// and a Prefill of 8,192 tokens at hidden 2048 in bf16, answers kept for replay, one step at a
// time; with a backend that only copies, and in a CUDA build on a machine with a GPU with the CUDA
// backend. Callers and servers are processes of their own. Calls go over a Unix socket or TCP, from
// a thread that sleeps until its answer has come and from one that spins; beside them an echo of an
// empty message and one of the same bytes, and such echoes that answer as late as a step would.
// Steps of one way follow one another, as those of a pass do, so that whoever spins for the next
// one is awake: blocks of 20 decodes or 4 prefills, each after a quarter as many that do not count,
// and the blocks of the ways in turn. With the CUDA backend the step's time on the device, by
// events, is measured before, and what the ways add to it is held against the targets.
//
//   planes_bench [--runs=N] [--null=false]
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <map>
#include <memory>
#include <string>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "server/allocator.h"
#include "tests/bench/null_model.h"
#include "tests/bench/planes_host.h"
#include "tests/bench/planes_targets.h"
#include "tests/bench/planes_ways.h"

ABSL_FLAG(bool, null, true, "with the backend that only copies, too");
ABSL_FLAG(int, runs, 1000, "decodes by each way; prefills are a twentieth of it");

namespace gdn {
namespace {

const BackendShape kShape = NullShape(/*slots=*/2 * kMostRows);

// The callers, and a region for them.
class Planes {
 public:
  explicit Planes(Board* board) : board_(*board), callers_(*board) {
    const size_t tensors = size_t{2} * kPrompt * kShape.geometry.hidden_size * 2;
    client::Error error =
        client::Region::Create(Connect(board->service.data()),
                               client::Ring::BytesOf(kRingQueue, kRingQueue) + tensors, &region_);
    if (!error.ok()) Fail(client::ToString(error));
  }

  // `device`: µs by which the late echo is late.
  WayTimes Measure(int64_t rows, int64_t tokens, double device) {
    board_.echo_late_ns = std::llround(1000 * device);
    const int runs = absl::GetFlag(FLAGS_runs) / (tokens > rows ? 20 : 1);
    return Ways(rows, tokens, &board_, &callers_, *region_).Measure(runs);
  }

 private:
  Board& board_;
  Callers callers_;
  std::unique_ptr<client::Region> region_;
};

void PrintHead(const char* backend) {
  std::printf("\nbackend %s\n%6s  %-31s %9s %9s %9s\n", backend, "tokens", "us", "p50", "p99",
              "beside");
}

void PrintStep(int64_t tokens, const StepTimes& step) {
  std::printf("%6lld  %-31s %9.1f (its kernels %.1f)\n", static_cast<long long>(tokens),
              "step on the device", step.device, step.kernels);
  std::printf("%6lld  %-31s %9.1f\n", static_cast<long long>(tokens), "in process",
              step.in_process);
}

void CallNull(Planes* planes) {
  PrintHead("null");
  planes->Measure(1, 1, 0);
  planes->Measure(kSomeRows, kSomeRows, 0);
  planes->Measure(kMostRows, kMostRows, 0);
  planes->Measure(1, kPrompt, 0);
}

void CallDevice(const Board& board, Planes* planes) {
  PrintHead("cuda");
  PrintStep(1, board.one);
  PrintStep(kSomeRows, board.some);
  PrintStep(kMostRows, board.most);
  PrintStep(kPrompt, board.prompt);
  JudgeDecode(1, planes->Measure(1, 1, board.one.device), board.one);
  JudgeDecode(kSomeRows, planes->Measure(kSomeRows, kSomeRows, board.some.device), board.some);
  JudgeDecode(kMostRows, planes->Measure(kMostRows, kMostRows, board.most.device), board.most);
  JudgePrefill(planes->Measure(1, kPrompt, board.prompt.device), board.prompt);
}

// The process that calls, once the other one serves; nothing where that returns.
int RunCallers(bool device, Board* board, int line) {
  char byte = 0;
  if (read(line, &byte, 1) != 1) return 0;
  TuneAllocator();
  TuneProcess();
  Planes planes(board);
  device ? CallDevice(*board, &planes) : CallNull(&planes);
  return 0;
}

// Whether both processes ended well. Neither gRPC nor CUDA survives a fork, so this one uses none.
bool Run(bool device) {
  int line[2];
  Board* board = Board::Make();
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, line) != 0) Fail("no socket");
  for (int side = 0; side < 2; ++side) {
    if (fork() != 0) continue;
    close(line[1 - side]);
    std::exit(side == 0 ? RunHost(kShape, device, board, line[0])
                        : RunCallers(device, board, line[1]));
  }
  close(line[0]);
  close(line[1]);
  bool well = true;
  for (int status = 0; wait(&status) > 0;) well = well && status == 0;
  return well;
}

int Main() {
  const bool null_well = !absl::GetFlag(FLAGS_null) || Run(/*device=*/false);
  return Run(/*device=*/true) && null_well ? 0 : 1;
}

}  // namespace
}  // namespace gdn

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  return gdn::Main();
}
