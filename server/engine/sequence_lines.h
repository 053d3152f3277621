// The lines of all sequences, kept up to date as items come and go, so that whether one is free to
// run is known without a look at the rows of the whole queue.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include "absl/container/flat_hash_map.h"
#include "server/engine/queue_item.h"
#include "state/slot_table.h"

namespace gdn {

class SequenceLines {
 public:
  // `sequences`: how many live at most. About as many lines are kept.
  explicit SequenceLines(size_t sequences) : sweep_at_(2 * sequences) {}

  // `item` waits from now on, in the lines of `keys`. It stays where it is until it leaves.
  void Join(std::span<const SequenceKey> keys, QueueItem* item);
  // It waits no longer. Nothing where it did not join.
  void Leave(QueueItem* item);
  // A batch in flight has the sequences: no step of them is free until they are let go, but one
  // that has begun.
  void Hold(std::span<const SequenceKey> keys);
  void LetGo(std::span<const SequenceKey> keys);

 private:
  void CountInFlight(std::span<const SequenceKey> keys, int batches);
  SequenceLine& LineOf(SequenceKey key);
  void Sweep();

  // Lines outlive those that stood in them, to be found again; now and then the idle ones go.
  absl::flat_hash_map<SequenceKey, std::unique_ptr<SequenceLine>> lines_;
  size_t sweep_at_;
};

}  // namespace gdn
