// Which of the waiting work runs next, and what is merged with it. Pure: no clock, no lock, no
// state.
//
//   Steps of a sequence at a layer keep their order of arrival; a call about a sequence waits for
//   all steps of it that came before, and one that ends sequences holds up those that come after.
//   Decodes go first, in order of arrival, and what they wait for takes over their priority. Calls
//   go with them once they wait for nothing, so that to ask after a prompt does not hurry it. A
//   prefill that waited for prefill_max_wait goes first, but never twice in a row past a decode.
//   Decodes of one layer and layout that are free to run are merged, within max_rows and
//   max_tokens.
//
//   Beside batches that are in flight nothing begins that is about a sequence of theirs, whatever
//   its layer: what such a step finds - whether the sequence lives, where it is - is known only
//   once they have ended. The same order holds as if they still waited: a prefill passes no decode
//   because that waits for them. Nor does one begin beside decodes: their answers would wait while
//   its input is gathered. A call runs only when nothing is in flight. A small batch of
//   decodes does not begin beside one of its layer either: a step costs what reading the layer's
//   weights costs, nearly whatever its rows, and while the first one runs more rows arrive. At half
//   of max_rows there is little left to win.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/time/time.h"
#include "state/slot_table.h"

namespace gdn {

// What the policy sees of a waiting step or call, or of a batch in flight.
struct QueueItem {
  enum class Kind : uint8_t { kDecode, kPrefill, kCall } kind = Kind::kDecode;
  int layer = 0;   // of a step
  int layout = 0;  // of a step
  int64_t rows = 0;
  int64_t tokens = 0;
  absl::Time arrival;
  std::span<const SequenceKey> keys;  // the sequences it concerns
  bool waits_for_all = false;         // a call that concerns every sequence; it holds up nothing
  bool holds_up = false;              // a call that steps of its sequences wait for
};

struct BatchLimits {
  int64_t max_rows = 0;
  int64_t max_tokens = 0;
  absl::Duration prefill_max_wait;
};

// Indices into the queue (which is in order of arrival) to run next as one batch, ascending; one
// index for a call or a prefill. Empty for an empty queue, or where what is next waits for the
// batches in flight, of which `in_flight` has one item each. `after_prefill`: the last batch begun
// was a prefill.
std::vector<size_t> Decide(std::span<const QueueItem> queue, std::span<const QueueItem> in_flight,
                           const BatchLimits& limits, bool after_prefill, absl::Time now);

}  // namespace gdn
