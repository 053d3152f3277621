#include "server/engine/engine_observer.h"

#include "tests/server/engine/engine_harness.h"

namespace gdn::test {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class EngineObserverTest : public EngineHarness {
 protected:
  EngineObserverTest() : EngineHarness(/*depth=*/2) {}

  // What was told since the last call.
  std::vector<std::string> Told() { return std::exchange(observer_.told, {}); }
};

TEST_F(EngineObserverTest, AStepIsFollowedFromTheQueueToItsAnswer) {
  Prefill(ById({"a", "b"}, true), Hidden({1, 2}));
  EXPECT_THAT(Told(), ElementsAre("step begins", "batch of 2 rows begins: prefill", "batch ended",
                                  "step ends, 0 replayed"));
}

TEST_F(EngineObserverTest, MergedDecodesAreOneBatch) {
  Begin("a");
  Begin("b");
  Told();
  Send(StepKind::kDecode, ById({"a"}), Hidden({1}));
  Send(StepKind::kDecode, ById({"b"}), Hidden({1}));
  RunAll();
  EXPECT_THAT(Told(), ElementsAre("step begins", "step begins", "batch of 2 rows begins: decode",
                                  "batch ended", "step ends, 0 replayed", "step ends, 0 replayed"));
}

TEST_F(EngineObserverTest, ReplaysAreCounted) {
  StepRequest request = ById({"a"}, true);
  request.step_id = 5;
  Decode(request, Hidden({1}));
  Told();
  Decode(request, Hidden({1}));
  EXPECT_EQ(Told().back(), "step ends, 1 replayed");
}

TEST_F(EngineObserverTest, ARefusedStepHasNoBatch) {
  Decode(ById({"unknown"}), Hidden({1}));
  EXPECT_THAT(Told(), ElementsAre("step begins", "step ends, 0 replayed"));
}

TEST_F(EngineObserverTest, AStepThatNeverEnteredTheQueueIsNotTold) {
  engine_->Close(now_);
  EXPECT_EQ(Send(StepKind::kDecode, ById({"a"}, true), Hidden({1}))->times, 1);
  EXPECT_THAT(Told(), IsEmpty());
}

TEST_F(EngineObserverTest, BatchesOfALostDeviceEndToo) {
  backend_.LoseDevice();
  Decode(ById({"a"}, true), Hidden({1}));
  EXPECT_THAT(Told(), ElementsAre("step begins", "batch of 1 rows begins: decode", "batch ended",
                                  "step ends, 0 replayed"));
}

TEST_F(EngineObserverTest, LeasesThatEndAreTold) {
  Begin("a");
  Begin("b");
  Told();
  now_ += 2 * kTtl;
  RunAll();
  EXPECT_THAT(Told(), ElementsAre("lease expired", "lease expired"));
}

TEST_F(EngineObserverTest, AStepKnowsWhenItCame) {
  Send(StepKind::kDecode, ById({"a"}, true), Hidden({1}));
  EXPECT_EQ(last_step_->submitted, now_);
}

class EngineObserverOfPieces : public EngineHarness {
 protected:
  EngineObserverOfPieces() : EngineHarness(/*depth=*/1, /*prefill_chunk=*/4) {}
};

TEST_F(EngineObserverOfPieces, AStepIsOneAndEveryPieceABatch) {
  StepRequest request = ById({"a"}, true);
  request.token_counts = {6};
  Prefill(request, Hidden({1, 2, 3, 4, 5, 6}));
  EXPECT_THAT(observer_.told, ElementsAre("step begins", "batch of 1 rows begins: prefill",
                                          "batch ended", "batch of 1 rows begins: prefill",
                                          "batch ended", "step ends, 0 replayed"));
}

}  // namespace
}  // namespace gdn::test
