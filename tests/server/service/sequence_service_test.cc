// Calls of SequenceService that wait while the engine is busy.
#include <future>
#include <list>
#include <thread>

#include "absl/time/clock.h"
#include "tests/server/service/service_harness.h"

namespace gdn::test {
namespace {

class SequenceServiceTest : public ServiceHarness {
 protected:
  // One release of "a", under way.
  struct Release {
    grpc::ClientContext context;
    std::future<grpc::Status> status;
  };

  Release& StartRelease() {
    const uint64_t before = received();
    Release& release = releases_.emplace_back();
    release.status = std::async(std::launch::async, [this, &release] {
      v1::ReleaseSequencesRequest request;
      v1::ReleaseSequencesResponse response;
      request.add_request_ids("a");
      return sequences_->ReleaseSequences(&release.context, request, &response);
    });
    while (received() == before) std::this_thread::yield();
    return release;
  }
  bool Lives() {
    grpc::ClientContext context;
    v1::GetSequenceRequest request;
    v1::GetSequenceResponse response;
    request.set_request_id("a");
    return sequences_->GetSequence(&context, request, &response).ok();
  }
  // Whether a release that `give_up` gives up while the engine is busy is refused and not run. The
  // server hears of it soon, but not at once: whether one try shows it is a matter of luck.
  template <typename GiveUp>
  bool SomeReleaseIsGivenUp(const GiveUp& give_up) {
    for (int i = 0; i < 100; ++i) {
      EXPECT_TRUE(Decode(ById({"a"}, {1}, /*create=*/true)).ok());
      const uint64_t refused = refusals();
      std::future<grpc::Status> blocked = BlockEngine();
      give_up();
      for (int j = 0; j < 10; ++j) EXPECT_TRUE(Raw("/gdn.v1.GdnService/GetServerInfo", "").ok());
      backend_.OpenGate();
      EXPECT_TRUE(blocked.get().ok());
      if (Lives() && refusals() == refused + 1) return true;
    }
    return false;
  }
  uint64_t received() const {
    return readiness_.metrics->of(Method::kReleaseSequences).received_bytes.value();
  }
  uint64_t refusals() const {
    return readiness_.metrics->errors[v1::ERROR_REASON_QUEUE_FULL].value();
  }

  std::list<Release> releases_;
};

TEST_F(SequenceServiceTest, ACallThatIsCancelledWhileItWaitsDoesNotRun) {
  Host();
  EXPECT_TRUE(SomeReleaseIsGivenUp([this] {
    Release& release = StartRelease();
    release.context.TryCancel();
    EXPECT_EQ(release.status.get().error_code(), grpc::CANCELLED);
  }));
}

TEST_F(SequenceServiceTest, ACallWhoseDeadlinePassesWhileItWaitsDoesNotRun) {
  Host();
  EXPECT_TRUE(SomeReleaseIsGivenUp([this] {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Milliseconds(50)));
    v1::ReleaseSequencesRequest request;
    v1::ReleaseSequencesResponse response;
    request.add_request_ids("a");
    EXPECT_EQ(sequences_->ReleaseSequences(&context, request, &response).error_code(),
              grpc::DEADLINE_EXCEEDED);
  }));
}

TEST_F(SequenceServiceTest, CallsThatWaitAreBounded) {
  Host();
  std::future<grpc::Status> blocked = BlockEngine();
  constexpr size_t kTooMany = 5;
  for (size_t i = 0; i < kMaxQueueSteps + kTooMany; ++i) StartRelease();
  while (refusals() < kTooMany) std::this_thread::yield();
  backend_.OpenGate();
  EXPECT_TRUE(blocked.get().ok());
  size_t refused = 0;
  for (Release& release : releases_) {
    const grpc::Status status = release.status.get();
    if (status.ok()) continue;
    ++refused;
    EXPECT_EQ(status.error_code(), grpc::RESOURCE_EXHAUSTED);
    EXPECT_EQ(ReasonOf(status), "QUEUE_FULL");
    EXPECT_GT(DetailOf<google::rpc::RetryInfo>(DetailsOf(status)).retry_delay().nanos(), 0);
    EXPECT_EQ(release.context.GetServerTrailingMetadata().count("grpc-retry-pushback-ms"), 1u);
  }
  EXPECT_EQ(refused, kTooMany);
}

}  // namespace
}  // namespace gdn::test
