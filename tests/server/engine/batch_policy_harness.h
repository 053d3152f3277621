// A queue for the batching policy, written down in order of arrival.
#pragma once

#include <algorithm>
#include <deque>
#include <memory>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/engine/batch_policy.h"
#include "server/engine/sequence_lines.h"

namespace gdn::test {

inline constexpr absl::Time kStart = absl::UnixEpoch();
inline constexpr BatchLimits kLimits = {8, 16, absl::Seconds(1)};

// The items arrive a millisecond apart.
class BatchPolicyHarness : public ::testing::Test {
 protected:
  using Kind = QueueItem::Kind;

  QueueItem& Add(Kind kind, std::vector<SequenceKey> keys, int layer = 0) {
    auto& [item, its_keys] = *entries_.emplace_back(std::make_unique<Entry>());
    item.kind = kind;
    item.serial = ++serial_;
    item.layer = layer;
    item.layout = 1;
    item.rows = item.tokens = static_cast<int64_t>(keys.size());
    item.arrival = kStart + absl::Milliseconds(entries_.size() - 1);
    its_keys = std::move(keys);
    return item;
  }
  void Decode(std::vector<SequenceKey> keys, int layer = 0) {
    Add(Kind::kDecode, std::move(keys), layer);
  }
  QueueItem& Prefill(std::vector<SequenceKey> keys, int layer = 0) {
    return Add(Kind::kPrefill, std::move(keys), layer);
  }
  // A prefill that runs in pieces, of which some may have run.
  void Cut(std::vector<SequenceKey> keys, bool begun = false) {
    QueueItem& item = Prefill(std::move(keys));
    item.cut = true;
    item.begun = begun;
  }
  void Call(std::vector<SequenceKey> keys) { Add(Kind::kCall, std::move(keys)); }
  void EndingCall(std::vector<SequenceKey> keys) {
    Add(Kind::kCall, std::move(keys)).holds_up = true;
  }
  QueueItem& item(size_t i) { return entries_[i]->item; }
  QueueItem& last() { return entries_.back()->item; }

  // What was added last is in flight.
  void Launch() {
    in_flight_.push_back({last().kind, last().layer});
    lines_.Leave(&last());
    flying_keys_.push_back(std::move(entries_.back()->keys));
    lines_.Hold(flying_keys_.back());
    entries_.pop_back();
  }
  // The oldest in flight has ended.
  void Land() {
    in_flight_.erase(in_flight_.begin());
    lines_.LetGo(flying_keys_.front());
    flying_keys_.pop_front();
  }

  std::vector<size_t> Chosen(bool after_prefill = false,
                             absl::Duration waited = absl::ZeroDuration()) {
    std::vector<const QueueItem*> queue;
    for (const auto& entry : entries_) {
      if (entry->item.lines.empty()) lines_.Join(entry->keys, &entry->item);
      queue.push_back(&entry->item);
    }
    return Decide(queue, in_flight_, kLimits, after_prefill, kStart + waited);
  }
  int AnyFreeDecode() const {
    return std::any_of(entries_.begin(), entries_.end(), [](const auto& entry) {
      return entry->item.kind == Kind::kDecode && entry->item.waits_for == 0;
    });
  }
  // The queue without what was chosen.
  void Remove(const std::vector<size_t>& chosen) {
    for (size_t i = chosen.size(); i-- > 0;) {
      lines_.Leave(&item(chosen[i]));
      entries_.erase(entries_.begin() + static_cast<ptrdiff_t>(chosen[i]));
    }
  }

  struct Entry {
    QueueItem item;
    std::vector<SequenceKey> keys;
  };
  SequenceLines lines_{4};
  std::vector<std::unique_ptr<Entry>> entries_;
  std::vector<FlyingItem> in_flight_;
  std::deque<std::vector<SequenceKey>> flying_keys_;
  uint64_t serial_ = 0;
};

}  // namespace gdn::test
