#include "server/engine/batch_policy.h"

#include <algorithm>
#include <cstdint>

namespace gdn {
namespace {

using Kind = QueueItem::Kind;
using Queue = std::span<const QueueItem* const>;
using InFlight = std::span<const FlyingItem>;

// The root of an item that waits for a batch in flight.
constexpr size_t kInFlight = SIZE_MAX;

// For each item, which item has to run before it can: itself, where it waits for nothing.
class Order {
 public:
  explicit Order(Queue queue)
      : queue_(queue),
        begun_(static_cast<size_t>(
            std::find_if(queue.begin(), queue.end(), [](const auto* i) { return i->begun; }) -
            queue.begin())) {}

  // A root waits for nothing.
  size_t RootOf(size_t i) {
    const QueueItem& item = *queue_[i];
    if (item.waits_for_all) return RootOfAll(i);
    if (item.waits_for == 0) return item.cut && !item.begun ? AfterOtherPieces(i) : i;
    if (known_.empty()) known_.resize(queue_.size(), kUnknown);
    if (known_[i] == kUnknown) known_[i] = RootInLines(item);
    return known_[i];
  }
  bool IsFree(size_t i) { return RootOf(i) == i; }

 private:
  static constexpr size_t kUnknown = SIZE_MAX - 1;

  size_t RootOfAll(size_t i) {
    if (begun_ < queue_.size()) return begun_;
    return i == 0 ? i : RootOf(0);  // what the first waits for is in flight
  }

  // One cut prefill is under way at a time.
  size_t AfterOtherPieces(size_t i) const { return begun_ < queue_.size() ? begun_ : i; }

  // Of an item that waits: the earliest root of those before it, or else what is in flight.
  size_t RootInLines(const QueueItem& item) {
    size_t root = kInFlight;
    for (const SequenceLine* line : item.lines) {
      const auto before = std::find_if(line->waiting.rbegin(), line->waiting.rend(),
                                       [&](const auto* other) { return WaitsFor(item, *other); });
      if (before != line->waiting.rend()) root = std::min(root, RootOf(IndexOf(**before)));
    }
    return root;
  }

  size_t IndexOf(const QueueItem& item) const {
    const auto at = std::lower_bound(queue_.begin(), queue_.end(), item.serial,
                                     [](const auto* i, uint64_t s) { return i->serial < s; });
    return static_cast<size_t>(at - queue_.begin());
  }

  const Queue queue_;
  const size_t begun_;  // index of the prefill of which pieces have begun, or the queue's size
  std::vector<size_t> known_;
};

// Whether an item goes before prefills.
bool IsUrgent(Queue queue, size_t i, Order& order) {
  return queue[i]->kind == Kind::kDecode || (queue[i]->kind == Kind::kCall && order.IsFree(i));
}

bool AnyUrgent(Queue queue, Order& order) {
  for (size_t i = 0; i < queue.size(); ++i) {
    if (IsUrgent(queue, i, order)) return true;
  }
  return false;
}

// The first prefill that does not wait for what is in flight, or the queue's size.
size_t FirstPrefill(Queue queue, Order& order) {
  size_t i = 0;
  while (i < queue.size() && (queue[i]->kind != Kind::kPrefill || order.RootOf(i) == kInFlight)) {
    ++i;
  }
  return i;
}

bool Mergeable(const QueueItem& a, const QueueItem& b) {
  return a.kind == Kind::kDecode && b.kind == Kind::kDecode && a.layer == b.layer &&
         a.layout == b.layout;
}

// Everything that may run beside `first`.
std::vector<size_t> Merge(Queue queue, Order& order, size_t first, const BatchLimits& limits) {
  std::vector<size_t> chosen = {first};
  if (queue[first]->kind != Kind::kDecode) return chosen;
  int64_t rows = queue[first]->rows;
  int64_t tokens = queue[first]->tokens;
  for (size_t i = first + 1; i < queue.size() && rows < limits.max_rows; ++i) {
    const QueueItem& item = *queue[i];
    if (!Mergeable(*queue[first], item) || !order.IsFree(i)) continue;
    if (rows + item.rows > limits.max_rows || tokens + item.tokens > limits.max_tokens) continue;
    rows += item.rows;
    tokens += item.tokens;
    chosen.push_back(i);
  }
  return chosen;
}

// Whether a batch of decodes is to become larger before it begins beside those in flight.
bool TooSmall(Queue queue, std::span<const size_t> chosen, InFlight in_flight,
              const BatchLimits& limits) {
  const QueueItem& first = *queue[chosen.front()];
  if (first.kind != Kind::kDecode) return false;
  int64_t rows = 0;
  for (const size_t i : chosen) rows += queue[i]->rows;
  if (2 * rows >= limits.max_rows) return false;
  return std::any_of(in_flight.begin(), in_flight.end(), [&first](const FlyingItem& batch) {
    return batch.kind == Kind::kDecode && batch.layer == first.layer;
  });
}

bool AnyDecodes(InFlight batches) {
  return std::any_of(batches.begin(), batches.end(),
                     [](const FlyingItem& batch) { return batch.kind == Kind::kDecode; });
}

// Whether what an urgent item waits for may begin: where `passed`, past a decode that would come
// first, and where the decodes of the layers in `small` wait for more.
bool MayBegin(Queue queue, size_t root, std::span<const int> small, bool passed) {
  if (root == kInFlight) return false;
  const QueueItem& item = *queue[root];
  if (item.kind == Kind::kPrefill) return !passed;
  return item.kind == Kind::kCall ||
         std::find(small.begin(), small.end(), item.layer) == small.end();
}

// The first of the urgent items that may begin, or what it waits for, prefills only with
// `prefills`.
std::vector<size_t> ChooseUrgent(Queue queue, Order& order, InFlight in_flight,
                                 const BatchLimits& limits, bool prefills) {
  std::vector<int> small;  // layers whose decodes wait for more
  bool passed = false;     // whether a decode waits that would come first
  for (size_t i = 0; i < queue.size(); ++i) {
    if (!IsUrgent(queue, i, order)) continue;
    const size_t root = order.RootOf(i);
    const bool prefill = root != kInFlight && queue[root]->kind == Kind::kPrefill;
    if (MayBegin(queue, root, small, passed) && (prefills || !prefill)) {
      // Nothing else begins either, or decodes that came later could hold it up for ever.
      if (prefill && AnyDecodes(in_flight)) return {};
      std::vector<size_t> chosen = Merge(queue, order, root, limits);
      if (!TooSmall(queue, chosen, in_flight, limits)) return chosen;
      small.push_back(queue[root]->layer);
    }
    passed = true;
  }
  return {};
}

}  // namespace

std::vector<size_t> Decide(Queue queue, InFlight in_flight, const BatchLimits& limits,
                           bool after_prefill, absl::Time now) {
  if (queue.empty()) return {};
  if (queue.size() == 1 && in_flight.empty()) return {0};
  Order order(queue);
  const bool urgent = AnyUrgent(queue, order);
  if (urgent && after_prefill) {
    std::vector<size_t> chosen = ChooseUrgent(queue, order, in_flight, limits, false);
    if (!chosen.empty()) return chosen;
    return ChooseUrgent(queue, order, in_flight, limits, true);
  }
  const size_t prefill = FirstPrefill(queue, order);
  const bool aged =
      prefill < queue.size() && now - queue[prefill]->arrival >= limits.prefill_max_wait;
  if (urgent && !aged) return ChooseUrgent(queue, order, in_flight, limits, true);
  if (prefill == queue.size()) return {};
  const size_t root = order.RootOf(prefill);
  if (queue[root]->kind == Kind::kPrefill && AnyDecodes(in_flight)) return {};
  return Merge(queue, order, root, limits);
}

}  // namespace gdn
