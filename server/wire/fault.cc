#include "server/wire/fault.h"

#include <utility>

namespace gdn {

void Fault::AddRow(v1::ErrorReason why, uint32_t row, uint64_t position) {
  if (ok()) reason = why;
  RowFaults& faults = rows[why];
  faults.rows.push_back(row);
  if (why == v1::ERROR_REASON_POSITION_MISMATCH) faults.positions.push_back(position);
}

Fault FaultOf(v1::ErrorReason reason, std::string message) {
  Fault fault;
  fault.reason = reason;
  fault.message = std::move(message);
  return fault;
}

Fault Draining() { return FaultOf(v1::ERROR_REASON_DRAINING, "the server is shutting down"); }

}  // namespace gdn
