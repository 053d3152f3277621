#include "server/service/sequences.h"

#include <limits>

#include "absl/strings/str_cat.h"
#include "tests/server/engine/engine_harness.h"

namespace gdn::test {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class SequencesTest : public EngineHarness {
 protected:
  v1::ListSequencesResponse ListPage(int page_size, const std::string& token) {
    v1::ListSequencesRequest request;
    request.set_page_size(page_size);
    request.set_page_token(token);
    EXPECT_TRUE(Validate(request, rules_).ok());
    v1::ListSequencesResponse response;
    EXPECT_TRUE(Execute(request, rules_, engine_.get(), now_, &response).ok());
    return response;
  }
  v1::RenewSequencesResponse RenewIds(const std::vector<std::string>& ids, int seconds = -1) {
    v1::RenewSequencesRequest request;
    for (const std::string& id : ids) request.add_request_ids(id);
    if (seconds >= 0) request.mutable_ttl()->set_seconds(seconds);
    EXPECT_TRUE(Validate(request, rules_).ok());
    v1::RenewSequencesResponse response;
    EXPECT_TRUE(Execute(request, rules_, engine_.get(), now_, &response).ok());
    return response;
  }
  void ReleaseOne(const std::string& id, std::vector<uint64_t> epochs = {}) {
    v1::ReleaseSequencesRequest request;
    request.add_request_ids(id);
    for (const uint64_t epoch : epochs) request.add_epochs(epoch);
    EXPECT_TRUE(Validate(request, rules_).ok());
    v1::ReleaseSequencesResponse response;
    EXPECT_TRUE(Execute(request, rules_, engine_.get(), now_, &response).ok());
  }

  const SequenceRules rules_ = {"instance", kTtl, absl::Hours(1)};
};

TEST_F(SequencesTest, GetShowsASequence) {
  Begin("a");
  StepRequest request = ById({"a"});
  request.layer = 7;
  request.token_counts = {2};
  Prefill(request, Hidden({1, 2}));
  v1::GetSequenceRequest get;
  get.set_request_id("a");
  v1::GetSequenceResponse response;
  ASSERT_TRUE(Execute(get, rules_, engine_.get(), now_, &response).ok());
  const v1::Sequence& sequence = response.sequence();
  EXPECT_EQ(sequence.request_id(), "a");
  EXPECT_EQ(sequence.slot(), SlotOf("a"));
  EXPECT_EQ(sequence.epoch(), kFirstEpoch);
  EXPECT_EQ(sequence.state(), v1::SEQUENCE_STATE_LIVE);
  EXPECT_THAT(sequence.positions(), ElementsAre(1, 2));
  EXPECT_EQ(sequence.create_time().seconds(), 3600);
  EXPECT_EQ(sequence.expire_time().seconds(), 3660);
}

TEST_F(SequencesTest, GetShowsAPoisonedSequence) {
  Begin("a");
  Decode(ById({"a"}), Hidden({kOverflowing}));
  v1::GetSequenceRequest get;
  get.set_request_id("a");
  v1::GetSequenceResponse response;
  ASSERT_TRUE(Execute(get, rules_, engine_.get(), now_, &response).ok());
  EXPECT_EQ(response.sequence().state(), v1::SEQUENCE_STATE_POISONED);
}

TEST_F(SequencesTest, GetTellsGoneFromExpired) {
  Begin("a");
  now_ += 2 * kTtl;
  RunAll();
  v1::GetSequenceRequest get;
  v1::GetSequenceResponse response;
  get.set_request_id("a");
  EXPECT_EQ(Execute(get, rules_, engine_.get(), now_, &response).reason,
            v1::ERROR_REASON_SEQUENCE_EXPIRED);
  get.set_request_id("b");
  EXPECT_EQ(Execute(get, rules_, engine_.get(), now_, &response).reason,
            v1::ERROR_REASON_SEQUENCE_NOT_FOUND);
}

TEST_F(SequencesTest, ListGoesBySlotInPages) {
  for (const char* id : {"a", "b", "c", "d"}) Begin(id);
  engine_->Release(SlotOf("b"));
  const v1::ListSequencesResponse first = ListPage(2, "");
  ASSERT_EQ(first.sequences_size(), 2);
  EXPECT_EQ(first.sequences(0).request_id(), "a");
  EXPECT_EQ(first.sequences(1).request_id(), "c");
  const v1::ListSequencesResponse second = ListPage(2, first.next_page_token());
  ASSERT_EQ(second.sequences_size(), 1);
  EXPECT_EQ(second.sequences(0).request_id(), "d");
  EXPECT_EQ(second.next_page_token(), "");
  for (const int size : {0, -1, 1001, 1000}) {
    EXPECT_EQ(ListPage(size, "").sequences_size(), 3);
  }
  EXPECT_EQ(ListPage(3, "").next_page_token(), "");
}

TEST_F(SequencesTest, ListRefusesTokensThatAreNotItsOwn) {
  v1::ListSequencesRequest request;
  for (const char* token : {"3", "other.3", "instance", "instance.", "instance.x", "instance.-1",
                            "instance.99999999999"}) {
    request.set_page_token(token);
    EXPECT_EQ(Validate(request, rules_).reason, v1::ERROR_REASON_MALFORMED_ID) << token;
  }
  EXPECT_THAT(ListPage(2, "instance.4").sequences(), IsEmpty());
}

TEST_F(SequencesTest, ReleaseIsFencedByTheEpoch) {
  Begin("a");
  ReleaseOne("a", {kFirstEpoch + 1});
  EXPECT_TRUE(Lives("a"));
  ReleaseOne("a", {kFirstEpoch});
  EXPECT_FALSE(Lives("a"));
  ReleaseOne("a");  // what is not there is no error
  Begin("a");
  ReleaseOne("a", {0});
  EXPECT_FALSE(Lives("a"));
}

TEST_F(SequencesTest, ReleaseRefusesBadIdsBeforeItReleasesAny) {
  v1::ReleaseSequencesRequest request;
  request.add_request_ids("a");
  request.add_request_ids("a b");
  EXPECT_EQ(Validate(request, rules_).reason, v1::ERROR_REASON_MALFORMED_ID);
  request.set_request_ids(1, "");
  EXPECT_EQ(Validate(request, rules_).reason, v1::ERROR_REASON_MALFORMED_ID);
  request.set_request_ids(1, "b");
  EXPECT_TRUE(Validate(request, rules_).ok());
  request.add_epochs(1);
  EXPECT_EQ(Validate(request, rules_).reason, v1::ERROR_REASON_MALFORMED_ID);
  request.clear_epochs();
  request.add_checkpoint_ids("?");
  EXPECT_EQ(Validate(request, rules_).reason, v1::ERROR_REASON_MALFORMED_ID);
}

TEST_F(SequencesTest, RenewLengthensAndNeverShortens) {
  const int32_t slot = Begin("a");
  RunAll();
  EXPECT_THAT(RenewIds({"a"}, 600).missing_request_ids(), IsEmpty());
  EXPECT_EQ(engine_->table().At(slot).expires, now_ + absl::Seconds(600));
  RenewIds({"a"}, 0);
  RenewIds({"a"});
  EXPECT_EQ(engine_->table().At(slot).expires, now_ + absl::Seconds(600));
  now_ += absl::Seconds(600);
  RenewIds({"a"});
  EXPECT_EQ(engine_->table().At(slot).expires, now_ + kTtl);
}

TEST_F(SequencesTest, RenewNamesWhatIsMissingOrPoisoned) {
  Begin("a");
  Begin("b");
  Decode(ById({"b"}), Hidden({kOverflowing}));
  const v1::RenewSequencesResponse response = RenewIds({"c", "a", "b"});
  EXPECT_THAT(response.missing_request_ids(), ElementsAre("c", "b"));
  EXPECT_EQ(response.instance_id(), "instance");
}

TEST_F(SequencesTest, RenewRefusesLeasesBeyondTheLongest) {
  v1::RenewSequencesRequest request;
  request.add_request_ids("a");
  request.mutable_ttl()->set_seconds(3600);
  EXPECT_TRUE(Validate(request, rules_).ok());
  request.mutable_ttl()->set_nanos(1);
  EXPECT_EQ(Validate(request, rules_).reason, v1::ERROR_REASON_UNSUPPORTED);
  for (const int64_t seconds :
       {std::numeric_limits<int64_t>::max(), int64_t{-1}, std::numeric_limits<int64_t>::min()}) {
    request.mutable_ttl()->set_seconds(seconds);
    EXPECT_EQ(Validate(request, rules_).reason, v1::ERROR_REASON_UNSUPPORTED) << seconds;
  }
  request.clear_ttl();
  request.add_request_ids("");
  EXPECT_EQ(Validate(request, rules_).reason, v1::ERROR_REASON_MALFORMED_ID);
}

// A call about a sequence comes after the steps that came before it, and a step after a release.
TEST_F(SequencesTest, CallsKeepTheirPlaceAmongSteps) {
  std::vector<std::string> order;
  const auto send = [&](const char* name, StepRequest request) {
    auto [step, outcome] = NewStep(StepKind::kPrefill, std::move(request), Hidden({1}));
    step->done = [&order, name](const Fault& fault, const StepAnswer&) {
      order.push_back(absl::StrCat(name, fault.ok() ? "" : "!"));
    };
    engine_->Submit(std::move(step), now_);
  };
  const auto call = [&](const char* name, bool release) {
    SendCall({{"a"}, false, release}, [this, &order, name, release](absl::Time) {
      order.push_back(name);
      if (release) engine_->Release(SlotOf("a"));
    });
  };
  send("create", ById({"a"}, true));
  call("get", false);
  call("release", true);
  send("after", ById({"a"}));
  RunAll();
  EXPECT_THAT(order, ElementsAre("create", "get", "release", "after!"));
}

}  // namespace
}  // namespace gdn::test
