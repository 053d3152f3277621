// Which sequence has which slot, how far it is at each layer, and when its lease ends. Pure
// bookkeeping: no lock, no clock, no device.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/time/time.h"

namespace gdn {

// Where a sequence is at one layer, and the step that brought it there.
struct LayerCursor {
  uint64_t position = 0;       // tokens folded in; 0: the slot's contents count as zero
  uint64_t step_id = 0;        // of the last step that folded something in; 0: not to be replayed
  uint64_t step_position = 0;  // where that step began
  uint32_t step_tokens = 0;    // and how long it was
  uint8_t step_layout = 0;     // gdn.v1.InputLayout of it
};

// Names a sequence by its request id alone, whether it lives yet or not. Two ids may share a key.
using SequenceKey = uint64_t;
SequenceKey KeyOf(std::string_view request_id);

struct SequenceRecord {
  std::string request_id;
  SequenceKey key = 0;
  uint64_t epoch = 0;  // of this tenancy of the slot; 0: the slot is free
  bool poisoned = false;
  absl::Time created;
  absl::Time expires;
  std::vector<LayerCursor> layers;
};

class SlotTable {
 public:
  // Epochs count up from first_epoch (not 0), which the caller draws at random at start.
  SlotTable(int slots, int layers, uint64_t first_epoch);

  int slots() const { return static_cast<int>(records_.size()); }
  int used() const { return static_cast<int>(by_id_.size()); }
  int free() const { return slots() - used(); }

  // The slot of a live sequence.
  std::optional<int32_t> Find(std::string_view request_id) const;
  // Of a slot in use; REQUIRES 0 <= slot < slots().
  bool InUse(int32_t slot) const { return records_[slot].epoch != 0; }
  const SequenceRecord& At(int32_t slot) const { return records_[slot]; }
  SequenceRecord& At(int32_t slot) { return records_[slot]; }

  // Gives `request_id` a free slot, a new epoch and position 0 at every layer.
  // REQUIRES free() > 0 and that the id is not live.
  int32_t Allocate(std::string_view request_id, absl::Time now, absl::Time expires);
  // Ends a sequence. REQUIRES InUse(slot).
  void Free(int32_t slot);
  // Takes an Allocate back: nothing is left of it but that its epoch never comes again.
  void Undo(int32_t slot);

  // Moves the end of the lease, never back.
  void Renew(int32_t slot, absl::Time expires);

  // The slots whose lease ended before `now`, but for those that `keep(slot)` holds. Costs nothing
  // while no lease can have ended.
  template <typename Keep>
  std::vector<int32_t> Due(absl::Time now, const Keep& keep);
  // Frees a slot whose lease ended. The last 4096 of them are remembered, in memory that is taken
  // at the start, or it would grow for hours.
  void Expire(int32_t slot);
  // No lease ends before this.
  absl::Time next_expiry() const { return next_expiry_; }

  // Whether the last sequence with this id, or the one with this epoch, ended by its lease.
  bool Expired(std::string_view request_id) const;
  bool Expired(uint64_t epoch) const { return expired_epochs_.contains(epoch); }

 private:
  static constexpr size_t kRemembered = 4096;

  // Of a sequence that expired. Two ids that share a key count as one here.
  struct Tombstone {
    SequenceKey key;
    uint64_t epoch;
  };

  void Forget(const Tombstone& tombstone);

  std::vector<SequenceRecord> records_;
  std::vector<int32_t> free_;  // a stack: the slot freed last is taken first
  absl::flat_hash_map<std::string, int32_t> by_id_;
  uint64_t next_epoch_;
  absl::Time next_expiry_ = absl::InfiniteFuture();
  // Of sequences that expired; the oldest of kRemembered is at next_tombstone_.
  std::vector<Tombstone> tombstones_;
  size_t next_tombstone_ = 0;
  absl::flat_hash_map<SequenceKey, uint64_t> expired_keys_;  // to the epoch that expired last
  absl::flat_hash_set<uint64_t> expired_epochs_;
};

template <typename Keep>
std::vector<int32_t> SlotTable::Due(absl::Time now, const Keep& keep) {
  std::vector<int32_t> due;
  if (now <= next_expiry_) return due;
  next_expiry_ = absl::InfiniteFuture();
  for (int32_t slot = 0; slot < slots(); ++slot) {
    if (!InUse(slot)) continue;
    if (records_[slot].expires < now && !keep(slot)) {
      due.push_back(slot);
    } else {
      next_expiry_ = std::min(next_expiry_, records_[slot].expires);
    }
  }
  return due;
}

}  // namespace gdn
