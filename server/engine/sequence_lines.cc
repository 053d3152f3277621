#include "server/engine/sequence_lines.h"

#include <algorithm>

namespace gdn {
namespace {

bool ArrivedBefore(const QueueItem* a, const QueueItem* b) { return a->serial < b->serial; }

// A call runs when nothing is in flight anyway, and steps that passed it are not to hold it up. Of
// the sequences of a prefill that has begun nothing but its own pieces is in flight.
bool WaitsForFlying(const QueueItem& item) {
  return item.kind != QueueItem::Kind::kCall && !item.begun;
}

}  // namespace

void SequenceLines::Join(std::span<const SequenceKey> keys, QueueItem* item) {
  item->lines.reserve(keys.size());
  for (const SequenceKey key : keys) {
    SequenceLine& line = LineOf(key);
    for (QueueItem* other : line.waiting) {
      if (other == item) continue;  // two ids may share a key
      if (WaitsFor(*item, *other)) ++item->waits_for;
      if (WaitsFor(*other, *item)) ++other->waits_for;
    }
    if (WaitsForFlying(*item)) item->waits_for += line.in_flight;
    line.waiting.insert(
        std::upper_bound(line.waiting.begin(), line.waiting.end(), item, ArrivedBefore), item);
    item->lines.push_back(&line);
  }
}

void SequenceLines::Leave(QueueItem* item) {
  for (SequenceLine* line : item->lines) {
    line->waiting.erase(std::find(line->waiting.begin(), line->waiting.end(), item));
    for (QueueItem* other : line->waiting) {
      if (other != item && WaitsFor(*other, *item)) --other->waits_for;
    }
  }
  item->lines.clear();
  item->waits_for = 0;
}

void SequenceLines::Hold(std::span<const SequenceKey> keys) { CountInFlight(keys, 1); }

void SequenceLines::LetGo(std::span<const SequenceKey> keys) { CountInFlight(keys, -1); }

void SequenceLines::CountInFlight(std::span<const SequenceKey> keys, int batches) {
  for (const SequenceKey key : keys) {
    SequenceLine& line = LineOf(key);
    line.in_flight += batches;
    for (QueueItem* item : line.waiting) {
      if (WaitsForFlying(*item)) item->waits_for += batches;
    }
  }
}

SequenceLine& SequenceLines::LineOf(SequenceKey key) {
  if (lines_.size() >= sweep_at_) Sweep();
  std::unique_ptr<SequenceLine>& line = lines_[key];
  if (line == nullptr) line = std::make_unique<SequenceLine>();
  return *line;
}

void SequenceLines::Sweep() {
  absl::erase_if(lines_, [](const auto& entry) {
    return entry.second->waiting.empty() && entry.second->in_flight == 0;
  });
  sweep_at_ = std::max(sweep_at_, 2 * lines_.size());
}

}  // namespace gdn
