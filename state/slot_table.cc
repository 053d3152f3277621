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
  expired_ids_.erase(At(slot).request_id);
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
  return expired_ids_.contains(Lookup(request_id));
}

void SlotTable::Renew(int32_t slot, absl::Time expires) {
  assert(InUse(slot));
  SequenceRecord& record = records_[slot];
  record.expires = std::max(record.expires, expires);
}

void SlotTable::Expire(int32_t slot) {
  assert(InUse(slot));
  const SequenceRecord& record = records_[slot];
  tombstones_.emplace_back(record.request_id, record.epoch);
  expired_ids_[record.request_id] = record.epoch;
  expired_epochs_.insert(record.epoch);
  Undo(slot);
  if (tombstones_.size() <= kRemembered) return;
  const auto& [id, epoch] = tombstones_.front();
  const auto it = expired_ids_.find(id);
  if (it != expired_ids_.end() && it->second == epoch) expired_ids_.erase(it);
  expired_epochs_.erase(epoch);
  tombstones_.pop_front();
}

}  // namespace gdn
