#include "state/state_lease.h"

#include <utility>

namespace gdn {

StateLease::StateLease(StateLease&& other) noexcept
    : table_(other.table_), slots_(std::exchange(other.slots_, {})) {}

StateLease::~StateLease() {
  for (const int32_t slot : slots_) table_->Undo(slot);
}

int32_t StateLease::Allocate(std::string_view request_id, absl::Time now, absl::Time expires) {
  slots_.push_back(table_->Allocate(request_id, now, expires));
  return slots_.back();
}

void StateLease::Commit(int32_t slot) { std::erase(slots_, slot); }

}  // namespace gdn
