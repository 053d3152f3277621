// What the policy sees of a step or call that waits, and who waits for whom.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/time/time.h"

namespace gdn {

struct QueueItem;

// Of one sequence: what waits and concerns it.
struct SequenceLine {
  std::vector<QueueItem*> waiting;  // in order of arrival
  int in_flight = 0;                // batches in flight that have it
};

struct QueueItem {
  enum class Kind : uint8_t { kDecode, kPrefill, kCall } kind = Kind::kDecode;
  uint64_t serial = 0;  // in order of arrival
  int layer = 0;        // of a step
  int layout = 0;       // of a step
  int64_t rows = 0;
  int64_t tokens = 0;
  absl::Time arrival;
  bool waits_for_all = false;  // a call that concerns every sequence; it holds up nothing
  bool holds_up = false;       // a call that steps of its sequences wait for
  bool cut = false;            // a prefill that runs in pieces
  bool begun = false;          // of which some have begun

  // Kept by SequenceLines.
  std::vector<SequenceLine*> lines;  // of the sequences it concerns
  int waits_for = 0;                 // how often others are before it there, or in flight
};

// Whether `item` waits for `other`, both in the line of a sequence. Steps of a layer keep their
// order; a call waits for all steps that came before it, and one that holds up is waited for. Of a
// prefill that has begun everything waits for the end.
inline bool WaitsFor(const QueueItem& item, const QueueItem& other) {
  using Kind = QueueItem::Kind;
  if (item.begun || other.begun) return other.begun && !item.begun;
  if (other.serial >= item.serial) return false;
  if (other.kind == Kind::kCall) return other.holds_up;
  return item.kind == Kind::kCall || other.layer == item.layer;
}

}  // namespace gdn
