#include "state/state_lease.h"

#include <algorithm>
#include <utility>

namespace gdn {

StateLease::StateLease(StateLease&& other) noexcept
    : table_(other.table_), slots_(std::exchange(other.slots_, {})) {}

StateLease::~StateLease() {
  for (const int32_t slot : slots_) table_->Free(slot);
}

int32_t StateLease::Allocate(std::string_view request_id, absl::Time now, absl::Time expires) {
  slots_.push_back(table_->Allocate(request_id, now, expires));
  return slots_.back();
}

bool StateLease::Owns(int32_t slot) const {
  return std::find(slots_.begin(), slots_.end(), slot) != slots_.end();
}

void StateLease::Commit(int32_t slot) { std::erase(slots_, slot); }

}  // namespace gdn
