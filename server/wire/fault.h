// Why a call was refused: one reason of gdn.v1.ErrorReason, and for a step the rows it concerns.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "gdn/v1/errors.pb.h"

namespace gdn {

struct RowFaults {
  std::vector<uint32_t> rows;       // ascending
  std::vector<uint64_t> positions;  // POSITION_MISMATCH: one for each of `rows`; else empty
};

struct Fault {
  v1::ErrorReason reason = v1::ERROR_REASON_UNSPECIFIED;  // of the lowest row, where rows are named
  std::string message;                                    // for people; at most a sentence
  std::map<std::string, std::string> metadata;            // of ErrorInfo, beside instance_id
  std::map<v1::ErrorReason, RowFaults> rows;
  absl::Duration retry_delay = absl::ZeroDuration();  // RetryInfo where not zero

  // Names row `row`; rows come in ascending order, and the first one gives `reason`.
  void AddRow(v1::ErrorReason why, uint32_t row, uint64_t position = 0);
  bool ok() const { return reason == v1::ERROR_REASON_UNSPECIFIED; }
};

// A fault of a whole call.
Fault FaultOf(v1::ErrorReason reason, std::string message);

// What is refused while the server shuts down.
Fault Draining();

}  // namespace gdn
