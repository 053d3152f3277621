// What the mirror says of calls.
#include <algorithm>

#include "gtest/gtest.h"
#include "tests/sim/mirror.h"

namespace gdn::test {

void Mirror::CheckCall(absl::Time now, const Item& item, const Reply& reply) {
  const CallSpec& call = item.call;
  switch (call.kind) {
    case CallSpec::Kind::kGet: {
      const std::string& id = call.ids.front();
      if (live_.contains(id)) {
        ASSERT_EQ(reply.shown.size(), 1u);
        EXPECT_EQ(reply.shown[0].request_id(), id);
        CheckShown(reply.shown[0]);
      } else {
        EXPECT_EQ(reply.fault.reason, IsExpired(id) ? v1::ERROR_REASON_SEQUENCE_EXPIRED
                                                    : v1::ERROR_REASON_SEQUENCE_NOT_FOUND);
      }
      return;
    }
    case CallSpec::Kind::kList:
      EXPECT_EQ(reply.shown.size(), live_.size());
      for (size_t i = 0; i < reply.shown.size(); ++i) {
        CheckShown(reply.shown[i]);
        EXPECT_TRUE(i == 0 || reply.shown[i - 1].slot() < reply.shown[i].slot());
      }
      return;
    case CallSpec::Kind::kRelease:
      for (size_t i = 0; i < call.ids.size(); ++i) {
        const auto it = live_.find(call.ids[i]);
        const uint64_t epoch = call.epochs.empty() ? 0 : call.epochs[i];
        if (it == live_.end() || (epoch != 0 && epoch != it->second.epoch)) continue;
        End(call.ids[i], /*expired=*/false);
      }
      return;
    case CallSpec::Kind::kRenew: {
      std::vector<std::string> missing;
      for (const std::string& id : call.ids) {
        const auto it = live_.find(id);
        if (it == live_.end() || it->second.poisoned) {
          missing.push_back(id);
        } else {
          it->second.expires = std::max(it->second.expires, now + call.ttl);
        }
      }
      EXPECT_EQ(reply.missing, missing);
      return;
    }
  }
}

void Mirror::CheckShown(const v1::Sequence& shown) const {
  const auto it = live_.find(shown.request_id());
  ASSERT_TRUE(it != live_.end()) << shown.request_id() << " does not live";
  const Sequence& sequence = it->second;
  EXPECT_EQ(shown.slot(), sequence.slot);
  EXPECT_EQ(shown.epoch(), sequence.epoch);
  EXPECT_EQ(shown.state() == v1::SEQUENCE_STATE_POISONED, sequence.poisoned);
  ASSERT_EQ(shown.positions_size(), rules_.layers);
  for (int layer = 0; layer < rules_.layers; ++layer) {
    EXPECT_EQ(shown.positions(layer), sequence.layers[layer].position);
  }
  EXPECT_EQ(absl::FromUnixSeconds(shown.expire_time().seconds()) +
                absl::Nanoseconds(shown.expire_time().nanos()),
            sequence.expires);
}

}  // namespace gdn::test
