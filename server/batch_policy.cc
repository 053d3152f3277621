#include "server/batch_policy.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_map.h"

namespace gdn {
namespace {

using Kind = QueueItem::Kind;

// For each item in turn, which item has to run before it can: itself, where it waits for nothing.
class Order {
 public:
  // The root of item `i`, the next in order of arrival. A root waits for nothing.
  size_t Add(const QueueItem& item, size_t i) {
    size_t root = i;
    if (item.waits_for_all) return 0;  // the first item is always a root
    for (const SequenceKey key : item.keys) {
      if (item.kind == Kind::kCall) {
        root = std::min(root, RootIn(any_, key, i));
      } else {
        root = std::min(root, RootIn(calls_, key, i));
        root = std::min(root, RootIn(steps_, std::pair(item.layer, key), i));
      }
    }
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
  template <typename Map, typename Key>
  static size_t RootIn(const Map& map, const Key& key, size_t otherwise) {
    const auto it = map.find(key);
    return it == map.end() ? otherwise : it->second;
  }

  absl::flat_hash_map<SequenceKey, size_t> any_;
  absl::flat_hash_map<SequenceKey, size_t> calls_;
  absl::flat_hash_map<std::pair<int, SequenceKey>, size_t> steps_;
};

// The first item that goes before prefills, or the queue's size.
size_t FirstUrgent(std::span<const QueueItem> queue, std::span<const size_t> roots) {
  size_t i = 0;
  while (i < queue.size() && queue[i].kind != Kind::kDecode &&
         (queue[i].kind != Kind::kCall || roots[i] != i)) {
    ++i;
  }
  return i;
}

size_t FirstPrefill(std::span<const QueueItem> queue) {
  const auto it = std::find_if(queue.begin(), queue.end(),
                               [](const QueueItem& item) { return item.kind == Kind::kPrefill; });
  return static_cast<size_t>(it - queue.begin());
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

}  // namespace

std::vector<size_t> Decide(std::span<const QueueItem> queue, const BatchLimits& limits,
                           bool after_prefill, absl::Time now) {
  if (queue.empty()) return {};
  if (queue.size() == 1) return {0};
  Order order;
  std::vector<size_t> roots(queue.size());
  for (size_t i = 0; i < queue.size(); ++i) roots[i] = order.Add(queue[i], i);

  const size_t urgent = FirstUrgent(queue, roots);
  const size_t prefill = FirstPrefill(queue);
  const bool aged =
      prefill < queue.size() && now - queue[prefill].arrival >= limits.prefill_max_wait;
  const bool prefill_first = urgent == queue.size() || (aged && !after_prefill);
  const size_t wanted = prefill_first ? prefill : urgent;
  return Merge(queue, roots, roots[wanted], limits);
}

}  // namespace gdn
