// Ten times more load than a server can take: what is admitted is answered as fast as ever, what is
// not is refused at once and says why, and the memory stays.
//
//   overload --target=ADDR --pid=PID [--seconds=60] [--rows=16] [--synthetic] [--loops=1]
//
// PID is the server's, whose memory is read. The load is decodes in open loops: they arrive when it
// is their time (Poisson), whatever became of those before. Capacity is what a closed loop with a
// few in flight reaches. Exit code 1 where a target is missed.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "client/cpp/client.h"
#include "tests/load/open_loop.h"

ABSL_FLAG(std::string, target, "", "the server's address");
ABSL_FLAG(int, pid, 0, "the server's process");
ABSL_FLAG(int, seconds, 60, "how long the overload lasts");
ABSL_FLAG(int, rows, 16, "of a decode");
ABSL_FLAG(bool, synthetic, false, "the server makes the inputs and keeps the answers");
ABSL_FLAG(int, loops, 1, "threads that send, each on a channel of its own");

namespace gdn {
namespace {

constexpr double kFactor = 10;
constexpr double kMaxRatio = 2;       // p99 of admitted calls, overloaded to at half of capacity
constexpr double kMaxGrowthMib = 64;  // of the resident size, meanwhile
constexpr double kMaxOffered = 1.1;   // of what was sent: else it was not that much load

double ResidentMib(int pid) {
  std::ifstream status("/proc/" + std::to_string(pid) + "/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmRSS:")) return std::stod(line.substr(6)) / 1024;
  }
  return 0;  // it is gone
}

struct Phase {
  Tally tally;
  double mib;  // the server's resident size at the end
};

void Print(const char* name, double offered, const Phase& phase) {
  const Tally& tally = phase.tally;
  std::printf("%-24s %9.0f %9.0f %9.0f %9zu %9.2f %9.2f %9.0f\n", name, offered,
              tally.sent / tally.seconds, tally.latencies_ms.size() / tally.seconds, tally.refused,
              tally.Percentile(0.5), tally.Percentile(0.99), phase.mib);
  for (const auto& [what, count] : tally.wrong) {
    std::printf("  WRONG: %zu calls ended with %s\n", count, what.c_str());
  }
}

bool Check(bool holds, const char* what, double value, double limit) {
  std::printf("%-44s %8.2f, at most %g: %s\n", what, value, limit, holds ? "yes" : "NO");
  return holds;
}

// How wide the server's hidden states are; ends the program where it cannot be asked.
size_t HiddenSize(const std::string& target) {
  v1::GetServerInfoResponse info;
  const client::Error error = client::Client(client::Connect(target)).Info(&info);
  if (error.ok()) return info.geometry().hidden_size();
  std::fprintf(stderr, "overload: %s\n", client::ToString(error).c_str());
  std::exit(1);
}

bool Judge(const Phase& half, const Phase& over, double offered, size_t wrong) {
  const double sent = over.tally.sent / over.tally.seconds;
  const double ratio = over.tally.Percentile(0.99) / half.tally.Percentile(0.99);
  const double growth = over.mib - half.mib;
  bool ok = Check(wrong == 0, "kinds of ends that are no typed refusal", wrong, 0);
  ok &= Check(offered <= kMaxOffered * sent, "ten times capacity, to what was sent", offered / sent,
              kMaxOffered);
  ok &= Check(ratio <= kMaxRatio, "p99 of admitted, to that at half of capacity", ratio, kMaxRatio);
  ok &= Check(growth <= kMaxGrowthMib, "growth of the resident size, MiB", growth, kMaxGrowthMib);
  return ok && over.tally.refused > 0 && over.mib > 0;
}

// Loops side by side.
class Loops {
 public:
  explicit Loops(const std::string& target) {
    LoopWork work = {HiddenSize(target), absl::GetFlag(FLAGS_rows), absl::GetFlag(FLAGS_synthetic)};
    for (; work.loop < absl::GetFlag(FLAGS_loops); ++work.loop) {
      loops_.push_back(std::make_unique<OpenLoop>(target, work));
    }
  }

  Tally Closed(double seconds) {
    return All([=](OpenLoop& loop) { return loop.Closed(seconds); });
  }
  Tally Open(double rate, double seconds) {
    const double share = rate / static_cast<double>(loops_.size());
    return All([=](OpenLoop& loop) { return loop.Open(share, seconds); });
  }

 private:
  Tally All(const std::function<Tally(OpenLoop&)>& phase) {
    std::vector<Tally> tallies(loops_.size());
    std::vector<std::thread> threads;
    for (size_t i = 0; i < loops_.size(); ++i) {
      threads.emplace_back([&, i] { tallies[i] = phase(*loops_[i]); });
    }
    Tally sum;
    for (size_t i = 0; i < loops_.size(); ++i) {
      threads[i].join();
      sum.Add(tallies[i]);
    }
    return sum;
  }

  std::vector<std::unique_ptr<OpenLoop>> loops_;
};

int Main() {
  const int pid = absl::GetFlag(FLAGS_pid);
  const int seconds = absl::GetFlag(FLAGS_seconds);
  Loops loops(absl::GetFlag(FLAGS_target));
  loops.Closed(/*seconds=*/2);  // begins the sequences
  const Phase closed = {loops.Closed(/*seconds=*/5), ResidentMib(pid)};
  const double capacity = closed.tally.latencies_ms.size() / closed.tally.seconds;
  const Phase half = {loops.Open(capacity / 2, std::max(seconds / 3, 5)), ResidentMib(pid)};
  const Phase over = {loops.Open(capacity * kFactor, seconds), ResidentMib(pid)};

  std::printf("overload: decodes of %d rows; calls/s (refused: calls), ms, resident MiB\n",
              absl::GetFlag(FLAGS_rows));
  std::printf("%-24s %9s %9s %9s %9s %9s %9s %9s\n", "", "offered", "sent", "admitted", "refused",
              "p50", "p99", "MiB");
  Print("closed loop", capacity, closed);
  Print("half of capacity", capacity / 2, half);
  Print("ten times capacity", capacity * kFactor, over);
  const size_t wrong =
      closed.tally.wrong.size() + half.tally.wrong.size() + over.tally.wrong.size();
  return Judge(half, over, capacity * kFactor, wrong) ? 0 : 1;
}

}  // namespace
}  // namespace gdn

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  return gdn::Main();
}
