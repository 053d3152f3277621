#include "server/service/shared_memory/ring_call.h"

#include <cstring>
#include <future>
#include <map>
#include <thread>

#include "client/cpp/region.h"
#include "client/cpp/ring.h"
#include "tests/server/service/service_harness.h"
#include "tests/testing/shared_object.h"

namespace gdn::test {
namespace {

constexpr size_t kRequests = 4096;
constexpr size_t kResponses = 32 << 10;
constexpr size_t kTensors = 64 << 10;
constexpr std::chrono::seconds kLong{60};

class RingCallTest : public ServiceHarness {
 protected:
  RingCallTest() : ServiceHarness(/*shared_memory=*/true) {}
  ~RingCallTest() override {
    backend_.OpenGate();
    ring_.reset();
    region_.reset();
  }

  client::Error Open(size_t requests = kRequests, size_t responses = kResponses) {
    ring_.reset();
    const size_t ring_bytes = client::Ring::BytesOf(requests, responses);
    client::Error error = client::Region::Create(channel_, ring_bytes + kTensors, &region_);
    EXPECT_TRUE(error.ok()) << client::ToString(error);
    tensors_ = region_->data() + ring_bytes;
    words_ = reinterpret_cast<RingWords*>(region_->data());
    return client::Ring::Open(channel_, *region_, requests, responses, &ring_);
  }
  // The step in the region's tensor `place`; it is answered where its input was.
  v1::StreamRequest InRegion(uint64_t tag, v1::DecodeRequest step, size_t place = 0) {
    const uint64_t offset = static_cast<uint64_t>(tensors_ - region_->data()) + place * 128;
    std::memcpy(region_->data() + offset, step.input().data(), step.input().size());
    step.clear_input();
    step.mutable_shared_memory()->set_region(region_->name());
    step.mutable_shared_memory()->set_input_offset(offset);
    step.mutable_shared_memory()->set_output_offset(offset);
    v1::StreamRequest request;
    request.set_tag(tag);
    *request.mutable_decode() = std::move(step);
    return request;
  }
  bool Post(const v1::StreamRequest& request) { return ring_->Post(request.SerializeAsString()); }
  v1::StreamResponse Receive() {
    std::string bytes;
    v1::StreamResponse response;
    EXPECT_TRUE(ring_->Receive(&bytes, kLong)) << client::ToString(ring_->EndOf());
    EXPECT_TRUE(response.ParseFromString(bytes));
    return response;
  }
  std::vector<float> Output(size_t tokens, size_t place = 0) const {
    std::vector<float> numbers(tokens * 4);
    std::memcpy(numbers.data(), tensors_ + place * 128, tokens * 16);
    return numbers;
  }
  // The reason with which the ring ends by itself.
  std::string EndReason() {
    std::string none;
    while (ring_->Receive(&none, kLong)) {
    }
    return v1::ErrorReason_Name(ring_->EndOf().reason).substr(13);
  }

  std::unique_ptr<client::Region> region_;
  std::unique_ptr<client::Ring> ring_;
  RingWords* words_ = nullptr;
  std::byte* tensors_ = nullptr;
};

TEST_F(RingCallTest, AnswersAsInline) {
  Host();
  ASSERT_TRUE(Open().ok());
  ASSERT_TRUE(Post(InRegion(7, ById({"a", ""}, {1, 2}, true))));
  v1::StreamResponse response = Receive();
  EXPECT_EQ(response.tag(), 7u);
  ASSERT_TRUE(response.has_decode());
  EXPECT_EQ(response.decode().output(), "");
  EXPECT_EQ(response.decode().slots_size(), 2);
  FakeState a;
  std::vector<float> expected = Foretell(Hidden({1}), &a);
  expected.insert(expected.end(), 4, 0);
  EXPECT_EQ(Output(2), expected);

  ASSERT_TRUE(Post(InRegion(8, BySlot(response.decode(), {3, 4}))));
  response = Receive();
  EXPECT_EQ(response.tag(), 8u);
  EXPECT_TRUE(response.has_decode());
  EXPECT_EQ(Output(1), Foretell(Hidden({3}), &a));
  EXPECT_EQ(PositionOf("a"), 2u);
}

TEST_F(RingCallTest, FaultsAreInBandAndTheRingGoesOn) {
  Host();
  ASSERT_TRUE(Open().ok());
  ASSERT_TRUE(Post(InRegion(1, ById({"gone"}, {1}))));
  v1::StreamResponse response = Receive();
  EXPECT_EQ(response.tag(), 1u);
  EXPECT_EQ(response.status().code(), grpc::NOT_FOUND);
  EXPECT_EQ(ReasonOf(response.status()), "SEQUENCE_NOT_FOUND");
  ASSERT_TRUE(Post(InRegion(2, ById({}, {}))));
  EXPECT_EQ(ReasonOf(Receive().status()), "MALFORMED_BATCH");
  v1::StreamRequest inline_input;
  *inline_input.mutable_decode() = ById({"a"}, {1}, true);
  ASSERT_TRUE(Post(inline_input));
  EXPECT_EQ(ReasonOf(Receive().status()), "UNSUPPORTED");
  v1::StreamRequest far = InRegion(3, ById({"a"}, {1}, true));
  far.mutable_decode()->mutable_shared_memory()->set_input_offset(~uint64_t{0});
  ASSERT_TRUE(Post(far));
  EXPECT_EQ(ReasonOf(Receive().status()), "INPUT_SIZE_MISMATCH");
  ASSERT_TRUE(Post(InRegion(4, ById({"a"}, {1}, true))));
  EXPECT_TRUE(Receive().has_decode());
}

TEST_F(RingCallTest, ReplaysAcrossPlanes) {
  Host();
  ASSERT_TRUE(Open().ok());
  v1::DecodeRequest request = ById({"a"}, {1}, true);
  request.mutable_batch()->set_step_id(5);
  ASSERT_TRUE(Decode(request).ok());
  ASSERT_TRUE(Post(InRegion(1, request)));
  EXPECT_EQ(Receive().decode().replayed_rows(), 1u);
  FakeState a;
  EXPECT_EQ(Output(1), Foretell(Hidden({1}), &a));
}

TEST_F(RingCallTest, ManyStepsGoAroundBothEnds) {
  Host();
  ASSERT_TRUE(Open().ok());
  ASSERT_TRUE(Decode(ById({"a", "b"}, {1, 1}, true)).ok());
  constexpr uint64_t kSteps = 3000;
  constexpr uint64_t kUnderWay = 20;
  constexpr uint64_t kPlaces = kTensors / 128;
  for (uint64_t tag = 0; tag < kSteps + kUnderWay; ++tag) {
    if (tag < kSteps) {
      ASSERT_TRUE(Post(InRegion(tag, ById({tag % 2 == 0 ? "a" : "b"}, {1}), tag % kPlaces)));
    }
    if (tag < kUnderWay) continue;
    ASSERT_TRUE(Receive().has_decode());
  }
  EXPECT_EQ(PositionOf("a"), 1 + kSteps / 2);
  EXPECT_EQ(PositionOf("b"), 1 + kSteps / 2);
}

// Nobody reads: steps stop being taken, the server goes on for others, and nothing is lost.
TEST_F(RingCallTest, AFullRingHurtsOnlyItsCaller) {
  Host();
  ASSERT_TRUE(Open().ok());
  ASSERT_TRUE(Decode(ById({"a"}, {1}, true)).ok());
  const std::string large(100, 'x');  // of refusals, which are large
  bool ring_has_room = true;
  uint64_t posted = 0;
  while (words_->server.sleeps_for != kToWrite || ring_has_room) {
    ring_has_room = Post(InRegion(posted, ById({large}, {1})));
    posted += ring_has_room ? 1 : 0;
  }
  EXPECT_GT(posted, RingCall::kMostUnderWay);
  EXPECT_TRUE(Decode(ById({"a"}, {2})).ok());
  std::map<uint64_t, int> answers;
  for (uint64_t i = 0; i < posted; ++i) ++answers[Receive().tag()];
  EXPECT_EQ(answers.size(), posted);
  ASSERT_TRUE(Post(InRegion(posted, ById({"a"}, {3}))));
  EXPECT_TRUE(Receive().has_decode());
}

TEST_F(RingCallTest, StepsAreTakenUpToAMeasure) {
  Host();
  ASSERT_TRUE(Open(64 << 10).ok());
  ASSERT_TRUE(Decode(ById({"a"}, {1}, true)).ok());
  backend_.CloseGate();
  const uint64_t kSteps = RingCall::kMostUnderWay + 10;
  for (uint64_t tag = 0; tag < kSteps; ++tag) {
    ASSERT_TRUE(Post(InRegion(tag, ById({"a"}, {1}), tag)));
  }
  AwaitWaiting(RingCall::kMostUnderWay);
  EXPECT_TRUE(!words_->requests_read.value ||
              words_->requests_read.value < words_->requests_written.value);
  backend_.OpenGate();
  for (uint64_t tag = 0; tag < kSteps; ++tag) EXPECT_EQ(Receive().tag(), tag);
}

TEST_F(RingCallTest, AnIdleRingIsWoken) {
  Host();
  ASSERT_TRUE(Open().ok());
  for (int i = 0; i < 5; ++i) {
    while (words_->server.sleeps_for == 0) std::this_thread::yield();
    ASSERT_TRUE(Post(InRegion(1, ById({"a"}, {1}, i == 0))));
    EXPECT_TRUE(Receive().has_decode());
  }
}

TEST_F(RingCallTest, RingsThatAreRefused) {
  const auto refused = [this](size_t requests, size_t responses, uint64_t offset) {
    grpc::ClientContext context;
    v1::ServeRingRequest request;
    request.mutable_ring()->set_region(region_->name());
    request.mutable_ring()->set_offset(offset);
    request.mutable_ring()->set_request_bytes(requests);
    request.mutable_ring()->set_response_bytes(responses);
    const auto call = v1::SharedMemoryService::NewStub(channel_)->ServeRing(&context, request);
    v1::ServeRingResponse response;
    EXPECT_FALSE(call->Read(&response));
    return ReasonOf(call->Finish());
  };
  Host();
  ASSERT_TRUE(Open().ok());
  EXPECT_EQ(refused(4095, kResponses, 0), "UNSUPPORTED");
  EXPECT_EQ(refused(2048, kResponses, 0), "UNSUPPORTED");
  EXPECT_EQ(refused(0, kResponses, 0), "UNSUPPORTED");
  EXPECT_EQ(refused(4096, kResponses + 8, 0), "UNSUPPORTED");
  EXPECT_EQ(refused(size_t{1} << 40, kResponses, 0), "UNSUPPORTED");
  EXPECT_EQ(refused(size_t{1} << 63, size_t{1} << 63, 0), "UNSUPPORTED");
  EXPECT_EQ(refused(4096, kResponses, 32), "UNSUPPORTED");
  EXPECT_EQ(refused(4096, 4096, 0), "INPUT_SIZE_MISMATCH");
  EXPECT_EQ(refused(1 << 20, kResponses, 0), "INPUT_SIZE_MISMATCH");
  EXPECT_EQ(refused(4096, kResponses, ~uint64_t{0} - 63), "INPUT_SIZE_MISMATCH");
  EXPECT_EQ(refused(4096, kResponses, region_->size() / 64 * 64), "INPUT_SIZE_MISMATCH");
  words_->responses_read.value = 8;  // it was served before
  EXPECT_EQ(refused(kRequests, kResponses, 0), "UNSUPPORTED");
  ring_.reset();
  region_.reset();
  client::Error error;
  {
    SCOPED_TRACE("a region that is gone");
    ASSERT_TRUE(Open().ok());
    ring_.reset();
    const auto gone = std::move(region_);
    grpc::ClientContext context;
    v1::UnregisterSharedMemoryRequest request;
    request.set_region(gone->name());
    v1::UnregisterSharedMemoryResponse response;
    ASSERT_TRUE(v1::SharedMemoryService::NewStub(channel_)
                    ->UnregisterSharedMemory(&context, request, &response)
                    .ok());
    error = client::Ring::Open(channel_, *gone, kRequests, kResponses, &ring_);
  }
  EXPECT_EQ(error.reason, v1::ERROR_REASON_REGION_NOT_FOUND);
}

TEST_F(RingCallTest, ADamagedRingEndsWithAReason) {
  Host();
  for (const uint64_t written : {uint64_t{1}, uint64_t{1} << 50, ~uint64_t{0}}) {
    ASSERT_TRUE(Open().ok());
    words_->requests_written.value = written;
    words_->server.Wake();
    EXPECT_EQ(EndReason(), "MALFORMED_MESSAGE");
  }
  for (const uint64_t read : {uint64_t{1}, uint64_t{1} << 50, ~uint64_t{kResponses}}) {
    ASSERT_TRUE(Open().ok());
    words_->responses_read.value = read;
    ASSERT_TRUE(Post(InRegion(1, ById({"gone"}, {1}))));
    EXPECT_EQ(EndReason(), "MALFORMED_MESSAGE");
  }
  for (const std::string& message : HostileMessages()) {
    ASSERT_TRUE(Open().ok());
    ASSERT_TRUE(ring_->Post(message));
    EXPECT_EQ(EndReason(), "MALFORMED_MESSAGE");
  }
  ASSERT_TRUE(Open().ok());
  ASSERT_TRUE(Post(v1::StreamRequest()));
  EXPECT_EQ(EndReason(), "MALFORMED_BATCH");
  EXPECT_EQ(engine_->waiting(), 0u);
}

// Everything in the region changes all the time. The ring may end; the server may not.
TEST_F(RingCallTest, AScribblerHarmsNobody) {
  Host();
  ASSERT_TRUE(Decode(ById({"a"}, {1}, true)).ok());
  for (int round = 0; round < 20; ++round) {
    ASSERT_TRUE(Open().ok());
    unsigned seed = static_cast<unsigned>(round);
    for (int i = 0; i < 20000; ++i) {
      const size_t at = static_cast<size_t>(rand_r(&seed)) % (512 + kRequests);
      region_->data()[at] = static_cast<std::byte>(rand_r(&seed));
    }
    words_->server.Wake();
    ring_.reset();
  }
  EXPECT_TRUE(Decode(ById({"a"}, {2})).ok());
}

// The caller here has no library, which would meet the truncation too.
TEST_F(RingCallTest, ATruncatedRingEnds) {
  Host();
  constexpr size_t kSize = kRingWordsBytes + kRequests + kResponses;
  for (const bool awake : {false, true}) {
    SharedObject object(kSize);
    v1::RegisterSharedMemoryRequest registration;
    registration.set_region("r");
    registration.set_posix_name(object.name());
    registration.set_byte_size(kSize);
    ASSERT_TRUE(regions_.Register(registration).ok());
    grpc::ClientContext context;
    v1::ServeRingRequest request;
    request.mutable_ring()->set_region("r");
    request.mutable_ring()->set_request_bytes(kRequests);
    request.mutable_ring()->set_response_bytes(kResponses);
    const auto call = v1::SharedMemoryService::NewStub(channel_)->ServeRing(&context, request);
    v1::ServeRingResponse response;
    ASSERT_TRUE(call->Read(&response));
    auto* words = reinterpret_cast<RingWords*>(object.data());
    while (words->server.sleeps_for == 0) std::this_thread::yield();
    words->requests_written.value = 8;  // an empty message
    if (awake) words->server.Wake();
    object.Resize(0);
    EXPECT_FALSE(call->Read(&response));
    const std::string reason = ReasonOf(call->Finish());
    EXPECT_TRUE(reason == "INPUT_SIZE_MISMATCH" || reason == "MALFORMED_MESSAGE" ||
                reason == "MALFORMED_BATCH")
        << reason;
    std::promise<void> gone;
    EXPECT_TRUE(regions_.Unregister("r", [&] { gone.set_value(); }).ok());
    gone.get_future().get();
  }
}

TEST_F(RingCallTest, TheCallersEndEndsIt) {
  Host();
  ASSERT_TRUE(Open().ok());
  ASSERT_TRUE(Decode(ById({"a"}, {1}, true)).ok());
  backend_.CloseGate();
  for (uint64_t tag = 0; tag < 3; ++tag) {
    ASSERT_TRUE(Post(InRegion(tag, ById({"a"}, {1}), tag)));
  }
  backend_.AwaitBlocked();
  AwaitWaiting(3);
  std::thread end([this] { ring_.reset(); });
  backend_.OpenGate();
  end.join();
  region_.reset();  // answered once the ring has let go of it
  AwaitWaiting(0);
  const uint64_t position = PositionOf("a");
  EXPECT_GE(position, 2u);  // what had begun has committed
  EXPECT_LE(position, 4u);
}

TEST_F(RingCallTest, TheEndOfTheEngineIsInBand) {
  Host();
  ASSERT_TRUE(Open().ok());
  EndEngine();
  ASSERT_TRUE(Post(InRegion(1, ById({"a"}, {1}, true))));
  EXPECT_EQ(ReasonOf(Receive().status()), "DRAINING");
}

TEST_F(RingCallTest, AShutdownEndsIt) {
  Host();
  ASSERT_TRUE(Open().ok());
  EndEngine();
  server_->Shutdown(absl::ZeroDuration());
  std::string none;
  EXPECT_FALSE(ring_->Receive(&none, kLong));
  EXPECT_FALSE(ring_->EndOf().ok());
}

}  // namespace
}  // namespace gdn::test
