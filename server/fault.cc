#include "server/fault.h"

namespace gdn {

void Fault::AddRow(v1::ErrorReason why, uint32_t row, uint64_t position) {
  if (ok()) reason = why;
  RowFaults& faults = rows[why];
  faults.rows.push_back(row);
  if (why == v1::ERROR_REASON_POSITION_MISMATCH) faults.positions.push_back(position);
}

}  // namespace gdn
