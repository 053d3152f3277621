// The slots that a step allocates while it is prepared: given up again unless the step commits.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/time/time.h"
#include "state/slot_table.h"

namespace gdn {

class StateLease {
 public:
  explicit StateLease(SlotTable* table) : table_(table) {}
  StateLease(StateLease&& other) noexcept;
  StateLease& operator=(StateLease&&) = delete;
  ~StateLease();

  // As SlotTable::Allocate; the slot is freed with the lease unless committed.
  int32_t Allocate(std::string_view request_id, absl::Time now, absl::Time expires);
  // Keeps `slot` if this lease allocated it.
  void Commit(int32_t slot);
  // Whether `slot` goes with the lease.
  bool Holds(int32_t slot) const {
    return std::find(slots_.begin(), slots_.end(), slot) != slots_.end();
  }

 private:
  SlotTable* table_;
  std::vector<int32_t> slots_;
};

}  // namespace gdn
