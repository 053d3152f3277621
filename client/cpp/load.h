// Decodes or prefills by several callers at once, for a while.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "client/cpp/client.h"

namespace gdn::client {

struct LoadOptions {
  bool prefill = false;
  int callers = 1;
  int rows = 1;
  int tokens = 1;  // of a row
  double seconds = 1;
};

struct LoadResult {
  double seconds = 0;             // from the first call to the last answer
  std::vector<double> latencies;  // of the calls that were answered OK, in seconds, ascending
  uint64_t errors = 0;
  Error first_error;

  // 0 where no call was answered.
  double Percentile(double percent) const;
};

// Makes a client with a connection of its own.
using MakeClient = std::function<std::unique_ptr<Client>()>;
// Told now and then: the share of the time that has passed, and the calls answered.
using Progress = std::function<void(double share, uint64_t calls)>;

// Every caller waits for its answer before it calls again, and stops at its first error. A decode
// steps sequences that the caller began; a prefill begins its sequences and releases them. All are
// released at the end.
LoadResult RunLoad(const v1::GetServerInfoResponse& info, const LoadOptions& options,
                   const MakeClient& make_client, const Progress& progress);

}  // namespace gdn::client
