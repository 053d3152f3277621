// What the ways may add to a step on the device.
#pragma once

#include <cstdint>
#include <cstdio>
#include <map>
#include <string>

#include "tests/bench/planes_board.h"
#include "tests/bench/planes_patience.h"

namespace gdn {

// µs.
struct WayTime {
  double p50 = 0;
  double p99 = 0;
  double beside = 0;  // median of what a step takes beside the backend, by the clock of its thread
};

// By name, behind which NameOf says how a call's caller waits.
using WayTimes = std::map<std::string, WayTime>;

inline void Check(const std::string& what, double value, double limit, bool at_least = false) {
  const bool holds = at_least ? value >= limit : value <= limit;
  std::printf("  %-56s %7.2f, at %s %.2f: %s\n", what.c_str(), value, at_least ? "least" : "most",
              limit, holds ? "yes" : "NO");
}

// Calls with inline tensors beside the plain echo, and beside the one that is as late as the step,
// since whoever sleeps as long as a step takes wakes up later than from a short sleep.
inline void JudgeInline(const WayTimes& ways, const StepTimes& step, double limit) {
  for (const Patience patience : {Patience::kSleeps, Patience::kSpins}) {
    for (const std::string& plane : {std::string(), std::string(", TCP")}) {
      const std::string how = plane + NameOf(patience);
      const double call = ways.at("call, inline" + how).p50;
      Check("call / late echo" + how, call / ways.at("late echo" + how).p50, limit);
      Check("call / (echo of the same bytes + device)" + how,
            call / (ways.at("echo, same bytes" + how).p50 + step.device), limit);
    }
  }
}

inline void JudgeShared(const WayTimes& ways, const StepTimes& step) {
  constexpr double kMost = 40;
  for (const Patience patience : {Patience::kSleeps, Patience::kSpins}) {
    const std::string how = NameOf(patience);
    const double call = ways.at("call, shared memory" + how).p50;
    Check("shared memory - (empty echo + device), us" + how,
          call - ways.at("echo, empty" + how).p50 - step.device, kMost);
    Check("shared memory - late empty echo, us" + how, call - ways.at("late echo, empty" + how).p50,
          kMost);
  }
}

inline void JudgeDecode(int64_t rows, const WayTimes& ways, const StepTimes& step) {
  if (rows == kMostRows) JudgeInline(ways, step, 1.15);
  JudgeShared(ways, step);
  const WayTime& ring = ways.at("ring");
  Check("ring - device, us", ring.p50 - step.device, rows == 1 ? 12 : 25);
  Check("ring, p99 / p50", ring.p99 / ring.p50, 2);
}

inline void JudgePrefill(const WayTimes& ways, const StepTimes& step) {
  JudgeInline(ways, step, 1.2);
  for (const Patience patience : {Patience::kSleeps, Patience::kSpins}) {
    const std::string how = NameOf(patience);
    Check("shared memory, tokens a second / in process" + how,
          step.in_process / ways.at("call, shared memory" + how).p50, 0.7, /*at_least=*/true);
  }
}

}  // namespace gdn
