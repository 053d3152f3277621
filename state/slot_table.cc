#include "state/slot_table.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "absl/hash/hash.h"
#include "absl/strings/string_view.h"

namespace gdn {
namespace {

// What Abseil's maps take, which is not std::string_view in every distribution.
absl::string_view Lookup(std::string_view id) { return {id.data(), id.size()}; }

}  // namespace

SequenceKey KeyOf(std::string_view request_id) {
  return absl::Hash<absl::string_view>{}(Lookup(request_id)) | 1;
}

SlotTable::SlotTable(int slots, int layers, uint64_t first_epoch)
    : records_(static_cast<size_t>(slots)), next_epoch_(first_epoch) {
  assert(first_epoch != 0);
  for (SequenceRecord& record : records_) record.layers.resize(static_cast<size_t>(layers));
  for (int32_t slot = slots - 1; slot >= 0; --slot) free_.push_back(slot);
  tombstones_.reserve(kRemembered);
  expired_keys_.reserve(kRemembered + 1);
  expired_epochs_.reserve(kRemembered + 1);
}

std::optional<int32_t> SlotTable::Find(std::string_view request_id) const {
  const auto it = by_id_.find(Lookup(request_id));
  if (it == by_id_.end()) return std::nullopt;
  return it->second;
}

int32_t SlotTable::Allocate(std::string_view request_id, absl::Time now, absl::Time expires) {
  assert(!free_.empty());
  const int32_t slot = free_.back();
  free_.pop_back();
  const bool inserted = by_id_.emplace(Lookup(request_id), slot).second;
  assert(inserted);
  (void)inserted;
  SequenceRecord& record = records_[slot];
  record.request_id = request_id;
  record.key = KeyOf(request_id);
  record.epoch = next_epoch_++;
  if (next_epoch_ == 0) next_epoch_ = 1;
  record.poisoned = false;
  record.created = now;
  record.expires = expires;
  std::fill(record.layers.begin(), record.layers.end(), LayerCursor{});
  next_expiry_ = std::min(next_expiry_, expires);
  return slot;
}

void SlotTable::Free(int32_t slot) {
  expired_keys_.erase(At(slot).key);
  Undo(slot);
}

void SlotTable::Undo(int32_t slot) {
  assert(InUse(slot));
  SequenceRecord& record = records_[slot];
  by_id_.erase(record.request_id);
  record.epoch = 0;
  free_.push_back(slot);
}

bool SlotTable::Expired(std::string_view request_id) const {
  return expired_keys_.contains(KeyOf(request_id));
}

void SlotTable::Renew(int32_t slot, absl::Time expires) {
  assert(InUse(slot));
  SequenceRecord& record = records_[slot];
  record.expires = std::max(record.expires, expires);
}

void SlotTable::Expire(int32_t slot) {
  assert(InUse(slot));
  const Tombstone tombstone = {At(slot).key, At(slot).epoch};
  expired_keys_[tombstone.key] = tombstone.epoch;
  expired_epochs_.insert(tombstone.epoch);
  Undo(slot);
  if (tombstones_.size() < kRemembered) return tombstones_.push_back(tombstone);
  Forget(std::exchange(tombstones_[next_tombstone_], tombstone));
  next_tombstone_ = (next_tombstone_ + 1) % kRemembered;
}

void SlotTable::Forget(const Tombstone& tombstone) {
  const auto it = expired_keys_.find(tombstone.key);
  if (it != expired_keys_.end() && it->second == tombstone.epoch) expired_keys_.erase(it);
  expired_epochs_.erase(tombstone.epoch);
}

}  // namespace gdn
