#include "server/engine/engine_thread.h"

#include <future>
#include <memory>

#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "tests/testing/fake_backend.h"
#include "tests/testing/steps.h"

namespace gdn::test {
namespace {

// By the number of batches that may be in flight.
class EngineThreadTest : public ::testing::TestWithParam<int> {
 protected:
  EngineThreadTest() : backend_(FakeShape(), GetParam()) {}

  void Start(absl::Duration ttl) {
    EngineOptions options;
    options.layers = {0, 1};
    options.shape = FakeShape();
    options.max_queue_steps = 100;
    options.max_queue_rows = 1 << 20;
    options.max_queue_bytes = 1 << 20;
    options.step_ttl = ttl;
    options.prefill_max_wait = absl::Seconds(1);
    engine_ = std::make_unique<Engine>(std::move(options), &backend_);
    thread_ = std::make_unique<EngineThread>(engine_.get());
  }
  std::future<Fault> Decode(const std::string& id, bool release_after = false) {
    StepRequest request;
    request.create = true;
    request.request_ids = {id};
    request.release_after = release_after;
    auto [step, outcome] = NewStep(StepKind::kDecode, std::move(request), Hidden({1}));
    auto answered = std::make_shared<std::promise<Fault>>();
    step->done = [answered](const Fault& fault, const StepAnswer&) { answered->set_value(fault); };
    engine_->Submit(std::move(step), absl::Now());
    return answered->get_future();
  }

  FakeBackend backend_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<EngineThread> thread_;
};
INSTANTIATE_TEST_SUITE_P(Depths, EngineThreadTest, ::testing::Values(1, 2));

TEST_P(EngineThreadTest, RunsWhatIsSubmitted) {
  Start(absl::Minutes(1));
  EXPECT_TRUE(Decode("a").get().ok());
  EXPECT_TRUE(Decode("b").get().ok());
}

TEST_P(EngineThreadTest, EndsLeasesByItself) {
  Start(absl::Milliseconds(1));
  EXPECT_TRUE(Decode("a").get().ok());
  while (engine_->slots_used() > 0) std::this_thread::yield();
}

TEST_P(EngineThreadTest, ItsEndRefusesWhatWaits) {
  Start(absl::Minutes(1));
  backend_.CloseGate();
  std::future<Fault> running = Decode("a");
  backend_.AwaitBlocked();
  std::future<Fault> waiting = Decode("a");
  std::thread ends([&] { thread_.reset(); });
  backend_.OpenGate();
  ends.join();
  EXPECT_TRUE(running.get().ok());
  const Fault fault = waiting.get();  // it may have run before the end
  EXPECT_TRUE(fault.ok() || fault.reason == v1::ERROR_REASON_DRAINING);
  EXPECT_EQ(Decode("a").get().reason, v1::ERROR_REASON_DRAINING);
}

TEST_P(EngineThreadTest, ADrainEndsAtOnceWhereNothingLives) {
  Start(absl::Minutes(1));
  EXPECT_TRUE(Decode("a", /*release_after=*/true).get().ok());
  thread_->Drain(absl::InfiniteDuration());
  EXPECT_EQ(Decode("a").get().reason, v1::ERROR_REASON_DRAINING);
}

TEST_P(EngineThreadTest, ADrainEndsOnceNoSequenceIsSteppedAnyMore) {
  Start(absl::Minutes(1));
  EXPECT_TRUE(Decode("a").get().ok());
  thread_->Drain(absl::InfiniteDuration());
  EXPECT_TRUE(Decode("a").get().ok());  // but what lives goes on until the end
  EXPECT_EQ(Decode("b").get().reason, v1::ERROR_REASON_DRAINING);
}

TEST_P(EngineThreadTest, ADrainEndsAtItsTimeoutWhateverWaits) {
  Start(absl::Minutes(1));
  backend_.CloseGate();
  std::future<Fault> running = Decode("a");
  backend_.AwaitBlocked();
  thread_->Drain(absl::Milliseconds(20));
  EXPECT_EQ(engine_->waiting(), 1u);
  backend_.OpenGate();
  EXPECT_TRUE(running.get().ok());
}

}  // namespace
}  // namespace gdn::test
