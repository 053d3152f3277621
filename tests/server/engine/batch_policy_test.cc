#include "tests/server/engine/batch_policy_harness.h"

namespace gdn::test {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

using BatchPolicyTest = BatchPolicyHarness;

TEST_F(BatchPolicyTest, NothingWaits) { EXPECT_THAT(Chosen(), IsEmpty()); }

TEST_F(BatchPolicyTest, MergesDecodesOfALayer) {
  Decode({1});
  Decode({2, 3});
  Decode({4});
  EXPECT_THAT(Chosen(), ElementsAre(0, 1, 2));
}

TEST_F(BatchPolicyTest, DoesNotMergeLayersOrLayouts) {
  Decode({1}, 0);
  Decode({2}, 1);
  Decode({3}, 0);
  last().layout = 2;
  Decode({4}, 0);
  EXPECT_THAT(Chosen(), ElementsAre(0, 3));
}

TEST_F(BatchPolicyTest, DoesNotMergePrefills) {
  Prefill({1});
  Prefill({2});
  EXPECT_THAT(Chosen(), ElementsAre(0));
}

TEST_F(BatchPolicyTest, MergesWithinTheRowLimit) {
  Decode({1, 2, 3, 4, 5});
  Decode({6, 7, 8, 9});  // does not fit
  Decode({10, 11, 12});
  EXPECT_THAT(Chosen(), ElementsAre(0, 2));
}

TEST_F(BatchPolicyTest, MergesWithinTheTokenLimit) {
  Decode({1});
  last().tokens = 10;
  Decode({2});
  last().tokens = 7;
  Decode({3});
  last().tokens = 6;
  EXPECT_THAT(Chosen(), ElementsAre(0, 2));
}

TEST_F(BatchPolicyTest, PaddingTakesRowsToo) {
  Decode({1});
  Decode({});
  last().rows = 8;
  Decode({2});
  EXPECT_THAT(Chosen(), ElementsAre(0, 2));
}

TEST_F(BatchPolicyTest, StepsOfASequenceAtALayerKeepTheirOrder) {
  Decode({1});
  Decode({1, 2});
  Decode({2});  // waits for the second, which waits for the first
  Decode({3});
  EXPECT_THAT(Chosen(), ElementsAre(0, 3));
  Remove({0, 3});
  EXPECT_THAT(Chosen(), ElementsAre(0));
  Remove({0});
  EXPECT_THAT(Chosen(), ElementsAre(0));
}

TEST_F(BatchPolicyTest, LayersOfASequenceDoNotWaitForEachOther) {
  Prefill({1}, 0);
  Decode({1}, 1);
  EXPECT_THAT(Chosen(), ElementsAre(1));
}

TEST_F(BatchPolicyTest, DecodesGoBeforePrefills) {
  Prefill({1});
  Decode({2});
  Decode({3});
  EXPECT_THAT(Chosen(), ElementsAre(1, 2));
}

TEST_F(BatchPolicyTest, WhatADecodeWaitsForTakesOverItsPriority) {
  Prefill({5});
  Prefill({1});
  Prefill({1, 2});
  Decode({2});
  Decode({3});
  EXPECT_THAT(Chosen(), ElementsAre(1));
  Remove({1});
  EXPECT_THAT(Chosen(), ElementsAre(1));
  Remove({1});
  EXPECT_THAT(Chosen(), ElementsAre(1, 2));
}

TEST_F(BatchPolicyTest, APrefillThatWaitedLongGoesFirst) {
  Prefill({1});
  Decode({2});
  EXPECT_THAT(Chosen(false, absl::Milliseconds(999)), ElementsAre(1));
  EXPECT_THAT(Chosen(false, absl::Seconds(1)), ElementsAre(0));
}

TEST_F(BatchPolicyTest, ButNeverTwiceInARowPastADecode) {
  Prefill({1});
  Prefill({2});
  Decode({3});
  EXPECT_THAT(Chosen(true, absl::Seconds(2)), ElementsAre(2));
  Remove({2});
  EXPECT_THAT(Chosen(true, absl::Seconds(2)), ElementsAre(0));  // no decode to pass
}

TEST_F(BatchPolicyTest, AnAgedPrefillWaitsForItsOwnSequence) {
  Decode({9});
  Decode({1, 2});
  Prefill({2});
  Decode({3});
  item(0).layer = 1;
  EXPECT_THAT(Chosen(false, absl::Seconds(2)), ElementsAre(1, 3));
}

TEST_F(BatchPolicyTest, CallsRunAloneAndInOrderWithDecodes) {
  Call({1});
  Decode({2});
  Call({3});
  EXPECT_THAT(Chosen(), ElementsAre(0));
  Remove({0});
  EXPECT_THAT(Chosen(), ElementsAre(0));
  Remove({0});
  EXPECT_THAT(Chosen(), ElementsAre(0));
}

TEST_F(BatchPolicyTest, ACallGoesBeforeAPrefill) {
  Prefill({1});
  Call({2});
  EXPECT_THAT(Chosen(), ElementsAre(1));
}

TEST_F(BatchPolicyTest, ACallWaitsForTheStepsOfItsSequencesAtAllLayers) {
  Decode({1}, 0);
  Decode({1}, 1);
  Decode({2}, 2);
  Call({1});
  for (const size_t expected : {0, 0, 0, 0}) {
    EXPECT_THAT(Chosen(), ElementsAre(expected));
    Remove({0});
  }
}

TEST_F(BatchPolicyTest, ACallThatWaitsHurriesNothing) {
  Prefill({1});
  Call({1});
  EndingCall({1});
  Decode({2});
  EXPECT_THAT(Chosen(), ElementsAre(3));
}

TEST_F(BatchPolicyTest, OnlyACallThatEndsSequencesHoldsUpTheirSteps) {
  Prefill({1}, 1);
  Call({1, 2});
  Decode({2});
  EXPECT_THAT(Chosen(), ElementsAre(2));
  Remove({2});
  EndingCall({1, 2});
  Decode({2});  // waits for the call, and that for the prefill
  EXPECT_THAT(Chosen(), ElementsAre(0));
  Remove({0});
  EXPECT_THAT(Chosen(), ElementsAre(0));
  Remove({0});
  EXPECT_THAT(Chosen(), ElementsAre(0));
  Remove({0});
  EXPECT_THAT(Chosen(), ElementsAre(0));
}

TEST_F(BatchPolicyTest, ACallThatWaitsForAllHoldsUpNothing) {
  Prefill({1});
  Call({});
  last().waits_for_all = true;
  Decode({2});
  EXPECT_THAT(Chosen(), ElementsAre(2));
  Remove({2});
  EXPECT_THAT(Chosen(), ElementsAre(0));
  Remove({0});
  EXPECT_THAT(Chosen(), ElementsAre(0));
}

TEST_F(BatchPolicyTest, NothingBeginsBesideAStepOfItsSequence) {
  Prefill({1, 2}, 0);
  Launch();
  Decode({2}, 0);
  Decode({1}, 1);
  EXPECT_THAT(Chosen(), IsEmpty());
  Decode({3}, 1);
  Decode({3, 4}, 1);
  EXPECT_THAT(Chosen(), ElementsAre(2));
}

TEST_F(BatchPolicyTest, APrefillBeginsBesideNoDecodes) {
  Decode({9});
  Launch();
  Prefill({1});
  EXPECT_THAT(Chosen(), IsEmpty());
  EXPECT_THAT(Chosen(false, absl::Seconds(1)), IsEmpty());
  Decode({1});  // its prefill comes before other decodes
  Decode({2}, 1);
  EXPECT_THAT(Chosen(), IsEmpty());
  Land();
  EXPECT_THAT(Chosen(), ElementsAre(0));
}

TEST_F(BatchPolicyTest, APrefillPassesNoDecodeThatWaitsForWhatIsInFlight) {
  Prefill({1});
  Launch();
  Prefill({2});
  EXPECT_THAT(Chosen(), ElementsAre(0));
  Prefill({1});
  EXPECT_THAT(Chosen(), ElementsAre(0));
  Decode({1}, 1);
  EXPECT_THAT(Chosen(), IsEmpty());
  Decode({2});  // its prefill does not take over its priority past the other
  EXPECT_THAT(Chosen(), IsEmpty());
  EXPECT_THAT(Chosen(false, absl::Seconds(1)), ElementsAre(0));
  EXPECT_THAT(Chosen(true, absl::Seconds(1)), IsEmpty());
}

TEST_F(BatchPolicyTest, APrefillThatWaitsForWhatIsInFlightLetsOthersPass) {
  Prefill({1});
  Launch();
  Prefill({1});
  Prefill({2});
  EXPECT_THAT(Chosen(), ElementsAre(1));
}

TEST_F(BatchPolicyTest, FewDecodesDoNotBeginBesideSomeOfTheirLayer) {
  Decode({9});
  Launch();
  Decode({1, 2});
  Decode({3});
  EXPECT_THAT(Chosen(), IsEmpty());
  Prefill({8});
  EXPECT_THAT(Chosen(), IsEmpty());
  Decode({4}, 1);
  EXPECT_THAT(Chosen(), ElementsAre(3));
  Decode({5});
  EXPECT_THAT(Chosen(), ElementsAre(0, 1, 4));  // half of what fits
}

TEST_F(BatchPolicyTest, FewDecodesBeginBesideAPrefill) {
  Prefill({9});
  Launch();
  Decode({1});
  EXPECT_THAT(Chosen(), ElementsAre(0));
}

TEST_F(BatchPolicyTest, StepsInFlightHoldUpNoCall) {
  Prefill({1});
  Launch();
  Call({1});
  EndingCall({1});
  Decode({1});
  EXPECT_THAT(Chosen(), ElementsAre(0));
  item(0).waits_for_all = true;
  EXPECT_THAT(Chosen(), ElementsAre(0));
}

TEST_F(BatchPolicyTest, ACallThatWaitsForAllWaitsForWhatWaitsForWhatIsInFlight) {
  Prefill({1});
  Launch();
  Prefill({1});
  Call({});
  last().waits_for_all = true;
  EXPECT_THAT(Chosen(), IsEmpty());
}

// A decode that is free to run goes between two prefills, whatever waits for them.
TEST_F(BatchPolicyTest, NoPrefillTwiceInARowPastAFreeDecode) {
  Prefill({1});
  Prefill({1, 2});
  Decode({2});
  Decode({3});
  EXPECT_THAT(Chosen(), ElementsAre(0));
  Remove({0});
  EXPECT_THAT(Chosen(true), ElementsAre(2));
  Remove({2});
  EXPECT_THAT(Chosen(true), ElementsAre(0));
}

TEST_F(BatchPolicyTest, TwoIdsMayShareAKey) {
  Decode({1, 1});
  Decode({1, 1});
  EXPECT_THAT(Chosen(), ElementsAre(0));
  Remove({0});
  EXPECT_THAT(Chosen(), ElementsAre(0));
  EXPECT_EQ(item(0).waits_for, 0);
}

// Whatever is in it, a queue becomes empty, one batch after another.
TEST_F(BatchPolicyTest, EveryQueueEnds) {
  uint64_t random = 1;
  const auto below = [&random](uint64_t n) {
    random = random * 6364136223846793005u + 1442695040888963407u;
    return (random >> 33) % n;
  };
  for (int round = 0; round < 200; ++round) {
    for (int i = 0; i < 20; ++i) {
      QueueItem& item = Add(static_cast<Kind>(below(3)), {1 + below(4), 10 + below(4)},
                            static_cast<int>(below(2)));
      if (item.kind == Kind::kCall) item.holds_up = below(2) == 0;
      if (item.kind == Kind::kCall) item.waits_for_all = below(3) == 0;
      if (item.kind == Kind::kPrefill) item.cut = below(2) == 0;
    }
    bool after_prefill = false;
    int decodes_passed = 0;
    for (int batch = 0; !entries_.empty(); ++batch) {
      ASSERT_LT(batch, 80);
      const std::vector<size_t> chosen = Chosen(after_prefill, absl::Seconds(below(3)));
      if (chosen.empty() || item(chosen.front()).kind == Kind::kCall) {
        ASSERT_FALSE(chosen.empty() && in_flight_.empty());
        while (!in_flight_.empty()) Land();
        Remove(chosen);
        continue;
      }
      QueueItem& first = item(chosen.front());
      const bool prefill = first.kind == Kind::kPrefill;
      EXPECT_LE(decodes_passed = prefill ? decodes_passed + AnyFreeDecode() : 0, 1);
      after_prefill = prefill;
      if (first.cut && below(2) == 0) {  // one piece of it, by itself
        while (!in_flight_.empty()) Land();
        lines_.Leave(&first);
        first.begun = true;
        continue;
      }
      if (in_flight_.size() == 2) Land();
      in_flight_.push_back({first.kind, first.layer});
      flying_keys_.push_back(entries_[chosen.front()]->keys);
      Remove(chosen);
      lines_.Hold(flying_keys_.back());
    }
    while (!in_flight_.empty()) Land();
  }
}

}  // namespace
}  // namespace gdn::test
