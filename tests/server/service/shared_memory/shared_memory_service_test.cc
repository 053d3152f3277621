#include <cstring>
#include <future>
#include <thread>

#include "absl/strings/str_cat.h"
#include "tests/server/service/service_harness.h"
#include "tests/testing/shared_object.h"

namespace gdn::test {
namespace {

constexpr size_t kSize = 8192;
constexpr size_t kOutput = 4096;

class SharedMemoryServiceTest : public ServiceHarness {
 protected:
  SharedMemoryServiceTest() : ServiceHarness(/*shared_memory=*/true), object_(kSize) {
    shared_ = v1::SharedMemoryService::NewStub(channel_);
  }
  grpc::Status Register(const std::string& region, const std::string& name, uint64_t size) {
    grpc::ClientContext context;
    v1::RegisterSharedMemoryRequest request;
    request.set_region(region);
    request.set_posix_name(name);
    request.set_byte_size(size);
    v1::RegisterSharedMemoryResponse response;
    return shared_->RegisterSharedMemory(&context, request, &response);
  }
  grpc::Status Unregister(const std::string& region) {
    grpc::ClientContext context;
    v1::UnregisterSharedMemoryRequest request;
    request.set_region(region);
    v1::UnregisterSharedMemoryResponse response;
    return shared_->UnregisterSharedMemory(&context, request, &response);
  }
  // The same step with its input at the start of the region, and its output at kOutput.
  v1::DecodeRequest InRegion(v1::DecodeRequest request, const std::string& region = "r") {
    std::memcpy(object_.data(), request.input().data(), request.input().size());
    request.clear_input();
    request.mutable_shared_memory()->set_region(region);
    request.mutable_shared_memory()->set_output_offset(kOutput);
    return request;
  }
  std::vector<float> Output(size_t tokens) const {
    std::vector<float> numbers(tokens * 4);
    std::memcpy(numbers.data(), object_.data() + kOutput, tokens * 16);
    return numbers;
  }

  SharedObject object_;
  std::unique_ptr<v1::SharedMemoryService::Stub> shared_;
};

TEST_F(SharedMemoryServiceTest, AnswersAsInline) {
  Host();
  ASSERT_TRUE(Register("r", object_.name(), kSize).ok());
  v1::DecodeResponse response;
  ASSERT_TRUE(Decode(InRegion(ById({"a", "", "b"}, {1, 2, 3}, true)), &response).ok());
  EXPECT_EQ(response.output(), "");
  EXPECT_EQ(response.slots_size(), 3);
  FakeState a, b;
  std::vector<float> expected = Foretell(Hidden({1}), &a);
  expected.insert(expected.end(), 4, 0);
  const std::vector<float> last = Foretell(Hidden({3}), &b);
  expected.insert(expected.end(), last.begin(), last.end());
  EXPECT_EQ(Output(3), expected);
}

TEST_F(SharedMemoryServiceTest, ReplaysToTheRegion) {
  Host();
  ASSERT_TRUE(Register("r", object_.name(), kSize).ok());
  v1::DecodeRequest request = ById({"a"}, {1}, true);
  request.mutable_batch()->set_step_id(5);
  ASSERT_TRUE(Decode(InRegion(request)).ok());
  const std::vector<float> first = Output(1);
  std::memset(object_.data(), 0, kSize);
  v1::DecodeResponse response;
  ASSERT_TRUE(Decode(InRegion(request), &response).ok());
  EXPECT_EQ(response.replayed_rows(), 1u);
  EXPECT_EQ(Output(1), first);
  // And what a region was answered with is replayed inline.
  ASSERT_TRUE(Decode(request, &response).ok());
  EXPECT_EQ(response.output(), std::string(reinterpret_cast<const char*>(first.data()), 16));
}

// A prefill's answer, which is larger than the backend keeps.
TEST_F(SharedMemoryServiceTest, KeepsLargeAnswers) {
  Host();
  ASSERT_TRUE(Register("r", object_.name(), kSize).ok());
  v1::DecodeRequest decode = ById({"a"}, {1, 2, 3}, true);
  decode.mutable_batch()->set_step_id(5);
  decode.mutable_batch()->add_token_counts(3);
  v1::PrefillRequest request;
  request.ParseFromString(InRegion(decode).SerializeAsString());
  for (const uint32_t replayed : {0, 1}) {
    grpc::ClientContext context;
    v1::PrefillResponse response;
    std::memset(object_.data() + kOutput, 0, kOutput);
    ASSERT_TRUE(gdn_->Prefill(&context, request, &response).ok());
    EXPECT_EQ(response.replayed_rows(), replayed);
    FakeState a;
    EXPECT_EQ(Output(3), Foretell(Hidden({1, 2, 3}), &a));
  }
}

// Where the host reaches nothing: answers, and replays of both kinds.
TEST_F(SharedMemoryServiceTest, DeviceMemoryIsLeftToTheDevice) {
  Host();
  auto& memory = opener_.allocations["handle"];
  memory.resize(kSize);
  v1::RegisterSharedMemoryRequest registration;
  registration.set_region("r");
  registration.set_cuda_ipc_handle("handle");
  registration.set_byte_size(kSize);
  grpc::ClientContext context;
  v1::RegisterSharedMemoryResponse response;
  ASSERT_TRUE(shared_->RegisterSharedMemory(&context, registration, &response).ok());
  for (const int tokens : {2, 3}) {  // the backend keeps 2, the store more
    const std::string hidden = tokens == 2 ? Hidden({7, 8}) : Hidden({7, 8, 9});
    v1::DecodeRequest step = ById({tokens == 2 ? "two" : "three"}, {}, true);
    step.mutable_batch()->set_step_id(5);
    step.mutable_batch()->add_token_counts(static_cast<uint32_t>(tokens));
    step.mutable_shared_memory()->set_region("r");
    step.mutable_shared_memory()->set_output_offset(kOutput);
    v1::PrefillRequest request;
    request.ParseFromString(step.SerializeAsString());
    std::memcpy(memory.data(), hidden.data(), hidden.size());
    FakeState state;
    const std::vector<float> expected = Foretell(hidden, &state);
    for (const uint32_t replayed : {0, 1}) {
      std::memset(memory.data() + kOutput, 0, hidden.size());
      grpc::ClientContext call;
      v1::PrefillResponse answer;
      ASSERT_TRUE(gdn_->Prefill(&call, request, &answer).ok());
      EXPECT_EQ(answer.replayed_rows(), replayed);
      EXPECT_EQ(std::memcmp(memory.data() + kOutput, expected.data(), hidden.size()), 0);
    }
  }
  EXPECT_TRUE(backend_.runs().front().direct_input && backend_.runs().front().direct);
  EXPECT_TRUE(Unregister("r").ok());
  EXPECT_EQ(opener_.open, 0);
}

TEST_F(SharedMemoryServiceTest, AStreamTakesThemToo) {
  Host();
  ASSERT_TRUE(Register("r", object_.name(), kSize).ok());
  grpc::ClientContext context;
  const auto stream = gdn_->Stream(&context);
  v1::StreamRequest request;
  request.set_tag(9);
  *request.mutable_decode() = InRegion(ById({"a"}, {1}, true));
  ASSERT_TRUE(stream->Write(request));
  request.mutable_decode()->mutable_shared_memory()->set_region("other");
  request.set_tag(10);
  v1::StreamResponse response;
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_TRUE(response.has_decode());
  EXPECT_EQ(response.decode().output(), "");
  FakeState a;
  EXPECT_EQ(Output(1), Foretell(Hidden({1}), &a));
  ASSERT_TRUE(stream->Write(request));
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(ReasonOf(response.status()), "REGION_NOT_FOUND");
  stream->WritesDone();
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(SharedMemoryServiceTest, AnInlineInputBesideItIsRefused) {
  Host();
  ASSERT_TRUE(Register("r", object_.name(), kSize).ok());
  v1::DecodeRequest request = InRegion(ById({"a"}, {1}, true));
  request.set_input(std::string(16, '\0'));
  EXPECT_EQ(ReasonOf(Decode(request)), "INPUT_SIZE_MISMATCH");
}

TEST_F(SharedMemoryServiceTest, ARefusedRowLeavesTheStateAsItWas) {
  Host();
  ASSERT_TRUE(Register("r", object_.name(), kSize).ok());
  ASSERT_TRUE(Decode(ById({"a"}, {1}, true)).ok());
  v1::DecodeRequest request = InRegion(ById({"a"}, {2}));
  request.mutable_shared_memory()->set_input_offset(kSize - 15);
  const grpc::Status status = Decode(request);
  EXPECT_EQ(status.error_code(), grpc::INVALID_ARGUMENT);
  EXPECT_EQ(ReasonOf(status), "INPUT_SIZE_MISMATCH");
  EXPECT_EQ(PositionOf("a"), 1u);
}

TEST_F(SharedMemoryServiceTest, UnregisteredUnderAStepThatUsesIt) {
  Host();
  ASSERT_TRUE(Register("r", object_.name(), kSize).ok());
  ASSERT_TRUE(Decode(ById({"a"}, {1}, true)).ok());
  backend_.CloseGate();
  auto running =
      std::async(std::launch::async, [&] { return Decode(InRegion(ById({"a"}, {2}))).ok(); });
  backend_.AwaitBlocked();
  auto gone = std::async(std::launch::async, [&] { return Unregister("r").ok(); });
  while (regions_.Find("r") != nullptr) std::this_thread::yield();
  EXPECT_EQ(ReasonOf(Decode(InRegion(ById({"a"}, {2})))), "REGION_NOT_FOUND");
  EXPECT_EQ(gone.wait_for(std::chrono::milliseconds(50)), std::future_status::timeout);
  backend_.OpenGate();
  EXPECT_TRUE(running.get());
  EXPECT_TRUE(gone.get());
  FakeState a;
  Foretell(Hidden({1}), &a);
  EXPECT_EQ(Output(1), Foretell(Hidden({2}), &a));
}

TEST_F(SharedMemoryServiceTest, TruncatedUnderAStepThatUsesIt) {
  Host();
  ASSERT_TRUE(Register("r", object_.name(), kSize).ok());
  ASSERT_TRUE(Decode(ById({"a"}, {1}, true)).ok());
  backend_.CloseGate();
  auto running =
      std::async(std::launch::async, [&] { return Decode(InRegion(ById({"a"}, {2}))).ok(); });
  backend_.AwaitBlocked();
  object_.Resize(0);
  backend_.OpenGate();
  EXPECT_TRUE(running.get());  // it had its input; its answer is lost
  EXPECT_EQ(PositionOf("a"), 2u);
  v1::DecodeRequest request = ById({"a"}, {2});
  request.clear_input();
  request.mutable_shared_memory()->set_region("r");
  EXPECT_EQ(ReasonOf(Decode(request)), "INPUT_SIZE_MISMATCH");
  object_.Resize(kSize);
}

TEST_F(SharedMemoryServiceTest, SaysWhyARegionIsRefused) {
  EXPECT_EQ(ReasonOf(Register("r", object_.name(), kSize)), "NOT_READY");
  EXPECT_EQ(ReasonOf(Unregister("r")), "NOT_READY");
  Host();
  EXPECT_EQ(Register("r", "other", kSize).error_code(), grpc::PERMISSION_DENIED);
  EXPECT_EQ(Register("r", "gdn-none", kSize).error_code(), grpc::FAILED_PRECONDITION);
  EXPECT_EQ(Register("r", object_.name(), kSize + 1).error_code(), grpc::INVALID_ARGUMENT);
  EXPECT_TRUE(Register("r", object_.name(), kSize).ok());
  EXPECT_EQ(Register("r", object_.name(), kSize).error_code(), grpc::ALREADY_EXISTS);
  EXPECT_EQ(ReasonOf(Unregister("no such id")), "MALFORMED_ID");
  EXPECT_TRUE(Unregister("r").ok());
  EXPECT_TRUE(Unregister("r").ok());
  for (const std::string& bytes : HostileMessages()) {
    for (const char* method : {"RegisterSharedMemory", "UnregisterSharedMemory", "ServeRing"}) {
      EXPECT_EQ(ReasonOf(Raw(absl::StrCat("/gdn.v1.SharedMemoryService/", method), bytes)),
                "MALFORMED_MESSAGE");
    }
  }
}

class NoSharedMemoryTest : public ServiceHarness {};

TEST_F(NoSharedMemoryTest, IsUnimplemented) {
  Host();
  for (const char* method : {"RegisterSharedMemory", "UnregisterSharedMemory", "ServeRing"}) {
    EXPECT_EQ(Raw(absl::StrCat("/gdn.v1.SharedMemoryService/", method), "").error_code(),
              grpc::UNIMPLEMENTED);
  }
  v1::DecodeRequest request = ById({"a"}, {1}, true);
  request.mutable_shared_memory()->set_region("r");
  EXPECT_EQ(ReasonOf(Decode(request)), "UNSUPPORTED");
}

}  // namespace
}  // namespace gdn::test
