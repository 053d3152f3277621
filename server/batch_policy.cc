#include "server/batch_policy.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"

namespace gdn {
namespace {

using Kind = QueueItem::Kind;

// The root of an item that waits for a batch in flight.
constexpr size_t kInFlight = SIZE_MAX;

// For each item in turn, which item has to run before it can: itself, where it waits for nothing.
class Order {
 public:
  explicit Order(std::span<const QueueItem> in_flight) {
    for (const QueueItem& batch : in_flight)
      in_flight_.insert(batch.keys.begin(), batch.keys.end());
  }

  // The root of item `i`, the next in order of arrival. A root waits for nothing.
  size_t Add(const QueueItem& item, size_t i) {
    const size_t root = RootOf(item, i);
    if (i == 0) first_ = root;
    if (item.kind == Kind::kCall && !item.holds_up) return root;
    for (const SequenceKey key : item.keys) {
      any_[key] = root;
      if (item.kind == Kind::kCall) {
        calls_[key] = root;
      } else {
        steps_[{item.layer, key}] = root;
      }
    }
    return root;
  }

 private:
  // A call waits for the steps in the queue alone: it runs when nothing is in flight anyway, and
  // steps that passed it are not to hold it up.
  size_t RootOf(const QueueItem& item, size_t i) const {
    if (item.waits_for_all) return i == 0 ? i : first_;  // what the first waits for is in flight
    size_t root = kInFlight;
    bool waits = false;
    const auto wait_for = [&](const auto& map, const auto& key) {
      const auto it = map.find(key);
      if (it == map.end()) return;
      root = std::min(root, it->second);
      waits = true;
    };
    for (const SequenceKey key : item.keys) {
      if (item.kind == Kind::kCall) {
        wait_for(any_, key);
      } else {
        wait_for(calls_, key);
        wait_for(steps_, std::pair(item.layer, key));
        waits = waits || in_flight_.contains(key);
      }
    }
    return waits ? root : i;
  }

  size_t first_ = 0;
  absl::flat_hash_set<SequenceKey> in_flight_;
  absl::flat_hash_map<SequenceKey, size_t> any_;
  absl::flat_hash_map<SequenceKey, size_t> calls_;
  absl::flat_hash_map<std::pair<int, SequenceKey>, size_t> steps_;
};

// Whether an item goes before prefills.
bool IsUrgent(const QueueItem& item, size_t root, size_t i) {
  return item.kind == Kind::kDecode || (item.kind == Kind::kCall && root == i);
}

// The first prefill that does not wait for what is in flight, or the queue's size.
size_t FirstPrefill(std::span<const QueueItem> queue, std::span<const size_t> roots) {
  size_t i = 0;
  while (i < queue.size() && (queue[i].kind != Kind::kPrefill || roots[i] == kInFlight)) ++i;
  return i;
}

bool Mergeable(const QueueItem& a, const QueueItem& b) {
  return a.kind == Kind::kDecode && b.kind == Kind::kDecode && a.layer == b.layer &&
         a.layout == b.layout;
}

// Everything that may run beside `first`: `roots` says what is free to run.
std::vector<size_t> Merge(std::span<const QueueItem> queue, std::span<const size_t> roots,
                          size_t first, const BatchLimits& limits) {
  std::vector<size_t> chosen = {first};
  int64_t rows = queue[first].rows;
  int64_t tokens = queue[first].tokens;
  for (size_t i = first + 1; i < queue.size(); ++i) {
    const QueueItem& item = queue[i];
    if (roots[i] != i || !Mergeable(queue[first], item)) continue;
    if (rows + item.rows > limits.max_rows || tokens + item.tokens > limits.max_tokens) continue;
    rows += item.rows;
    tokens += item.tokens;
    chosen.push_back(i);
  }
  return chosen;
}

// Whether a batch of decodes is to become larger before it begins beside those in flight.
bool TooSmall(std::span<const QueueItem> queue, std::span<const size_t> chosen,
              std::span<const QueueItem> in_flight, const BatchLimits& limits) {
  const QueueItem& first = queue[chosen.front()];
  if (first.kind != Kind::kDecode) return false;
  int64_t rows = 0;
  for (const size_t i : chosen) rows += queue[i].rows;
  if (2 * rows >= limits.max_rows) return false;
  return std::any_of(in_flight.begin(), in_flight.end(), [&first](const QueueItem& batch) {
    return batch.kind == Kind::kDecode && batch.layer == first.layer;
  });
}

bool AnyDecodes(std::span<const QueueItem> batches) {
  return std::any_of(batches.begin(), batches.end(),
                     [](const QueueItem& batch) { return batch.kind == Kind::kDecode; });
}

// Whether what an urgent item waits for may begin: where `passed`, past a decode that would come
// first, and where the decodes of the layers in `small` wait for more.
bool MayBegin(std::span<const QueueItem> queue, size_t root, std::span<const int> small,
              bool passed) {
  if (root == kInFlight) return false;
  const QueueItem& item = queue[root];
  if (item.kind == Kind::kPrefill) return !passed;
  return item.kind == Kind::kCall ||
         std::find(small.begin(), small.end(), item.layer) == small.end();
}

// The first of the urgent items that may begin, or what it waits for.
std::vector<size_t> ChooseUrgent(std::span<const QueueItem> queue, std::span<const size_t> roots,
                                 std::span<const QueueItem> in_flight, const BatchLimits& limits) {
  std::vector<int> small;  // layers whose decodes wait for more
  bool passed = false;     // whether a decode waits that would come first
  for (size_t i = 0; i < queue.size(); ++i) {
    const size_t root = roots[i];
    if (!IsUrgent(queue[i], root, i)) continue;
    if (MayBegin(queue, root, small, passed)) {
      // Nothing else begins either, or decodes that came later could hold it up for ever.
      if (queue[root].kind == Kind::kPrefill && AnyDecodes(in_flight)) return {};
      std::vector<size_t> chosen = Merge(queue, roots, root, limits);
      if (!TooSmall(queue, chosen, in_flight, limits)) return chosen;
      small.push_back(queue[root].layer);
    }
    passed = true;
  }
  return {};
}

}  // namespace

std::vector<size_t> Decide(std::span<const QueueItem> queue, std::span<const QueueItem> in_flight,
                           const BatchLimits& limits, bool after_prefill, absl::Time now) {
  if (queue.empty()) return {};
  if (queue.size() == 1 && in_flight.empty()) return {0};
  Order order(in_flight);
  std::vector<size_t> roots(queue.size());
  bool urgent = false;
  for (size_t i = 0; i < queue.size(); ++i) {
    roots[i] = order.Add(queue[i], i);
    urgent = urgent || IsUrgent(queue[i], roots[i], i);
  }
  const size_t prefill = FirstPrefill(queue, roots);
  const bool aged =
      prefill < queue.size() && now - queue[prefill].arrival >= limits.prefill_max_wait;
  if (urgent && (!aged || after_prefill)) return ChooseUrgent(queue, roots, in_flight, limits);
  if (prefill == queue.size()) return {};
  const size_t root = roots[prefill];
  if (queue[root].kind == Kind::kPrefill && AnyDecodes(in_flight)) return {};
  return Merge(queue, roots, root, limits);
}

}  // namespace gdn
