// Which of the waiting work runs next, and what is merged with it. Pure: no clock, no lock, no
// state.
//
//   Steps of a sequence at a layer keep their order of arrival; a call about a sequence waits for
//   all steps of it that came before, and one that ends sequences holds up those that come after.
//   Decodes go first, in order of arrival, and what they wait for takes over their priority. Calls
//   go with them once they wait for nothing, so that to ask after a prompt does not hurry it. A
//   prefill that waited for prefill_max_wait goes first, but no prefill ever goes twice in a row
//   past a decode or call that is free to run. Decodes of one layer and layout that are free to run
//   are merged, within max_rows and max_tokens.
//
//   A long prefill runs in pieces, and after each of them it is decided anew. It keeps its place in
//   the queue, and whatever is about its sequences waits for its end. One such prefill is under way
//   at a time: the next one waits for it, one that needs no cutting does not.
//
//   Beside batches that are in flight nothing begins that is about a sequence of theirs, whatever
//   its layer, but the next piece of a prefill: what such a step finds - whether the sequence
//   lives, where it is - is known only once they have ended. The same order holds as if they still
//   waited: a prefill passes no decode because that waits for them. Nor does one begin beside
//   decodes: their answers would wait while its input is gathered. A call runs only when nothing is
//   in flight. A small batch of decodes does not begin beside one of its layer either: a step costs
//   what reading the layer's weights costs, nearly whatever its rows, and while the first one runs
//   more rows arrive. At half of max_rows there is little left to win.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/time/time.h"
#include "server/engine/queue_item.h"

namespace gdn {

// What the policy sees of a batch in flight.
struct FlyingItem {
  QueueItem::Kind kind = QueueItem::Kind::kDecode;
  int layer = 0;
};

struct BatchLimits {
  int64_t max_rows = 0;
  int64_t max_tokens = 0;
  absl::Duration prefill_max_wait;
};

// Indices into the queue (which is in order of arrival, and in its SequenceLines) to run next as
// one batch, ascending; one index for a call or a prefill. Empty for an empty queue, or where what
// is next waits for the batches in flight, of which `in_flight` has one item each. `after_prefill`:
// the last batch begun was a prefill, or a piece of one.
std::vector<size_t> Decide(std::span<const QueueItem* const> queue,
                           std::span<const FlyingItem> in_flight, const BatchLimits& limits,
                           bool after_prefill, absl::Time now);

}  // namespace gdn
