#include <chrono>
#include <future>
#include <limits>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tests/server/service/service_harness.h"

namespace gdn::test {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
const char* const kGdnMethods[] = {"GetServerInfo", "Prefill", "Decode"};
const char* const kSequenceMethods[] = {"GetSequence", "ListSequences", "ReleaseSequences",
                                        "RenewSequences"};

std::string OutputOf(const std::string& hidden, FakeState* state) {
  const std::vector<float> rows = Foretell(hidden, state);
  return {reinterpret_cast<const char*>(rows.data()), rows.size() * sizeof(float)};
}

class ServiceTest : public ServiceHarness {
 protected:
  // Whether, while the engine is blocked, a step of "a" that `give_up` sends and gives up is not
  // run.
  template <typename GiveUp>
  bool SomeTryIsGivenUp(const GiveUp& give_up) {
    for (int i = 0; i < 100; ++i) {
      const uint64_t before = PositionOf("a");
      std::future<grpc::Status> blocked = BlockEngine();
      give_up();
      for (int j = 0; j < 10; ++j) EXPECT_TRUE(Raw("/gdn.v1.GdnService/GetServerInfo", "").ok());
      backend_.OpenGate();
      EXPECT_TRUE(blocked.get().ok());
      AwaitWaiting(0);
      if (PositionOf("a") == before) return true;
    }
    return false;
  }
  std::future<grpc::Status> DecodeLater(const v1::DecodeRequest& request,
                                        grpc::ClientContext* context) {
    return std::async(std::launch::async, [this, request, context] {
      v1::DecodeResponse response;
      return gdn_->Decode(context, request, &response);
    });
  }
};

TEST_F(ServiceTest, NothingIsServedBeforeItIsReady) {
  for (const char* method : kGdnMethods) {
    const grpc::Status status = Raw(absl::StrCat("/gdn.v1.GdnService/", method), "");
    EXPECT_EQ(status.error_code(), grpc::UNAVAILABLE) << method;
    EXPECT_EQ(ReasonOf(status), "NOT_READY") << method;
    EXPECT_GT(DetailOf<google::rpc::RetryInfo>(DetailsOf(status)).retry_delay().seconds(), 0);
  }
  for (const char* method : kSequenceMethods) {
    const grpc::Status status = Raw(absl::StrCat("/gdn.v1.SequenceService/", method), "");
    EXPECT_EQ(ReasonOf(status), "NOT_READY") << method;
  }
  Host();
  EXPECT_TRUE(Raw("/gdn.v1.GdnService/GetServerInfo", "").ok());
}

TEST_F(ServiceTest, ServerInfoTellsTheSlotsUsed) {
  Host();
  ASSERT_TRUE(Decode(ById({"a", "b"}, {1, 2}, true)).ok());
  grpc::ClientContext context;
  v1::GetServerInfoResponse info;
  ASSERT_TRUE(gdn_->GetServerInfo(&context, {}, &info).ok());
  EXPECT_EQ(info.instance_id(), "instance");
  EXPECT_EQ(info.slots(), 4u);
  EXPECT_EQ(info.slots_used(), 2u);
}

TEST_F(ServiceTest, AnswersRowsByIdAndBySlot) {
  Host();
  FakeState a, b;
  v1::DecodeResponse begun;
  ASSERT_TRUE(Decode(ById({"a", "", "b"}, {1, 9, 2}, true), &begun).ok());
  EXPECT_EQ(begun.output(),
            OutputOf(Hidden({1}), &a) + std::string(16, '\0') + OutputOf(Hidden({2}), &b));
  EXPECT_EQ(begun.slots_size(), 3);
  EXPECT_EQ(begun.slots(1), -1);
  EXPECT_EQ(begun.epochs(1), 0u);
  v1::DecodeResponse response;
  ASSERT_TRUE(Decode(BySlot(begun, {3, 9, 4}), &response).ok());
  EXPECT_EQ(response.output(),
            OutputOf(Hidden({3}), &a) + std::string(16, '\0') + OutputOf(Hidden({4}), &b));
  EXPECT_THAT(response.slots(), IsEmpty());
  EXPECT_THAT(response.epochs(), IsEmpty());
}

TEST_F(ServiceTest, PrefillTakesLongRows) {
  Host();
  v1::PrefillRequest request;
  ASSERT_TRUE(request.ParseFromString(ById({"a"}, {1, 2, 3, 4, 5}, true).SerializeAsString()));
  request.mutable_batch()->add_token_counts(5);
  FakeState a;
  grpc::ClientContext context;
  v1::PrefillResponse response;
  ASSERT_TRUE(gdn_->Prefill(&context, request, &response).ok());
  EXPECT_EQ(response.output(), OutputOf(Hidden({1, 2, 3, 4, 5}), &a));
  v1::DecodeRequest decode;
  ASSERT_TRUE(decode.ParseFromString(request.SerializeAsString()));
  EXPECT_EQ(ReasonOf(Decode(decode)), "BATCH_TOO_LARGE");
}

TEST_F(ServiceTest, AnAnswerMayBeEmpty) {
  Host();
  v1::DecodeResponse begun;
  ASSERT_TRUE(Decode(ById({"a"}, {1}, true), &begun).ok());
  v1::DecodeRequest request = BySlot(begun, {2});
  request.mutable_batch()->set_discard_output(true);
  v1::DecodeResponse response;
  ASSERT_TRUE(Decode(request, &response).ok());
  EXPECT_EQ(response.ByteSizeLong(), 0u);
  EXPECT_EQ(PositionOf("a"), 2u);
}

TEST_F(ServiceTest, FaultsNameReasonAndRows) {
  Host();
  ASSERT_TRUE(Decode(ById({"a"}, {1}, true)).ok());
  v1::DecodeRequest request = ById({"a", "b"}, {1, 1});
  request.mutable_batch()->add_positions(7);
  request.mutable_batch()->add_positions(0);
  const grpc::Status status = Decode(request);
  EXPECT_EQ(status.error_code(), grpc::ABORTED);
  EXPECT_EQ(status.error_message(), "row 0 (and 1 more): POSITION_MISMATCH, it is at 1");
  const google::rpc::Status details = DetailsOf(status);
  EXPECT_EQ(ReasonOf(details), "POSITION_MISMATCH");
  EXPECT_EQ(DetailOf<google::rpc::ErrorInfo>(details).metadata().at("instance_id"), "instance");
  ASSERT_EQ(details.details_size(), 3);
  v1::RowErrors missing, mismatched;
  ASSERT_TRUE(details.details(1).UnpackTo(&missing));
  ASSERT_TRUE(details.details(2).UnpackTo(&mismatched));
  EXPECT_EQ(missing.reason(), v1::ERROR_REASON_SEQUENCE_NOT_FOUND);
  EXPECT_THAT(missing.rows(), ElementsAre(1));
  EXPECT_THAT(mismatched.rows(), ElementsAre(0));
  EXPECT_THAT(mismatched.positions(), ElementsAre(1));
  EXPECT_EQ(ReasonOf(Decode(ById({"a"}, {kNan}))), "NON_FINITE_INPUT");
}

TEST_F(ServiceTest, EveryMethodRefusesWhatDoesNotParse) {
  Host();
  ASSERT_TRUE(Decode(ById({"a"}, {1}, true)).ok());
  for (const std::string& bytes : HostileMessages()) {
    for (const char* method : kGdnMethods) {
      const grpc::Status status = Raw(absl::StrCat("/gdn.v1.GdnService/", method), bytes);
      EXPECT_EQ(status.error_code(), grpc::INVALID_ARGUMENT) << method;
      EXPECT_EQ(ReasonOf(status), "MALFORMED_MESSAGE") << method;
    }
    for (const char* method : kSequenceMethods) {
      const grpc::Status status = Raw(absl::StrCat("/gdn.v1.SequenceService/", method), bytes);
      EXPECT_EQ(status.error_code(), grpc::INVALID_ARGUMENT) << method;
      EXPECT_EQ(ReasonOf(status), "MALFORMED_MESSAGE") << method;
    }
  }
  EXPECT_EQ(PositionOf("a"), 1u);
}

TEST_F(ServiceTest, WhatIsNotServedYetIsUnimplemented) {
  Host();
  for (const std::string& bytes : HostileMessages()) {
    for (const char* method :
         {"SequenceService/ForkSequences", "SequenceService/CheckpointSequence",
          "SequenceService/RestoreSequence", "SequenceService/ExportSequence",
          "SequenceService/ImportSequence", "SharedMemoryService/RegisterSharedMemory"}) {
      EXPECT_EQ(Raw(absl::StrCat("/gdn.v1.", method), bytes).error_code(), grpc::UNIMPLEMENTED)
          << method;
    }
  }
}

TEST_F(ServiceTest, AMessageOverTheLimitIsRefusedByGrpc) {
  Host();
  v1::DecodeRequest request = ById({"a"}, {1}, true);
  request.set_input(std::string(kMaxMessageBytes, 'x'));
  const grpc::Status status = Decode(request);
  EXPECT_EQ(status.error_code(), grpc::RESOURCE_EXHAUSTED);
  EXPECT_EQ(status.error_details(), "");
  EXPECT_TRUE(Decode(ById({"a"}, {1}, true)).ok());
}

TEST_F(ServiceTest, SequencesAreShownRenewedAndReleased) {
  Host();
  ASSERT_TRUE(Decode(ById({"a", "b"}, {1, 2}, true)).ok());
  grpc::ClientContext list_context, renew_context, release_context;
  v1::ListSequencesResponse list;
  ASSERT_TRUE(sequences_->ListSequences(&list_context, {}, &list).ok());
  EXPECT_EQ(list.sequences_size(), 2);
  v1::RenewSequencesRequest renew;
  renew.add_request_ids("a");
  renew.add_request_ids("c");
  v1::RenewSequencesResponse renewed;
  ASSERT_TRUE(sequences_->RenewSequences(&renew_context, renew, &renewed).ok());
  EXPECT_THAT(renewed.missing_request_ids(), ElementsAre("c"));
  v1::ReleaseSequencesRequest release;
  release.add_request_ids("a");
  v1::ReleaseSequencesResponse released;
  ASSERT_TRUE(sequences_->ReleaseSequences(&release_context, release, &released).ok());
  EXPECT_EQ(ReasonOf(Decode(ById({"a"}, {1}))), "SEQUENCE_NOT_FOUND");
  EXPECT_EQ(PositionOf("b"), 1u);
}

TEST_F(ServiceTest, DecodesOfSeveralCallersAreMerged) {
  Host();
  ASSERT_TRUE(Decode(ById({"a", "b", "c"}, {1, 2, 3}, true)).ok());
  std::future<grpc::Status> blocked = BlockEngine();
  grpc::ClientContext contexts[3];
  std::vector<std::future<grpc::Status>> decodes;
  decodes.push_back(DecodeLater(ById({"a"}, {4}), &contexts[0]));
  decodes.push_back(DecodeLater(ById({"b"}, {5}), &contexts[1]));
  decodes.push_back(DecodeLater(ById({"c", "gone"}, {6, 6}), &contexts[2]));
  AwaitWaiting(4);
  backend_.OpenGate();
  EXPECT_TRUE(blocked.get().ok());
  EXPECT_TRUE(decodes[0].get().ok());
  EXPECT_TRUE(decodes[1].get().ok());
  EXPECT_EQ(ReasonOf(decodes[2].get()), "SEQUENCE_NOT_FOUND");
  EXPECT_EQ(backend_.runs().back().parts, 2u);
  EXPECT_EQ(backend_.runs().size(), 3u);
}

// The server hears of it soon, but not at once: whether one try shows it is a matter of luck.
TEST_F(ServiceTest, ACallThatIsCancelledWhileItWaitsDoesNotRun) {
  Host();
  ASSERT_TRUE(Decode(ById({"a"}, {1}, true)).ok());
  const bool given_up = SomeTryIsGivenUp([this] {
    grpc::ClientContext context;
    std::future<grpc::Status> cancelled = DecodeLater(ById({"a"}, {2}), &context);
    AwaitWaiting(2);
    context.TryCancel();
    EXPECT_EQ(cancelled.get().error_code(), grpc::CANCELLED);
  });
  EXPECT_TRUE(given_up);
}

TEST_F(ServiceTest, ACallWhoseDeadlinePassesWhileItWaitsDoesNotRun) {
  Host();
  ASSERT_TRUE(Decode(ById({"a"}, {1}, true)).ok());
  const bool given_up = SomeTryIsGivenUp([this] {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Milliseconds(50)));
    std::future<grpc::Status> late = DecodeLater(ById({"a"}, {2}), &context);
    EXPECT_EQ(late.get().error_code(), grpc::DEADLINE_EXCEEDED);
  });
  EXPECT_TRUE(given_up);
}

TEST_F(ServiceTest, AFullQueueRefusesAtOnce) {
  Host();
  std::future<grpc::Status> blocked = BlockEngine();
  std::vector<grpc::ClientContext> contexts(kMaxQueueSteps - 1);
  std::vector<std::future<grpc::Status>> waiting;
  for (grpc::ClientContext& context : contexts) {
    waiting.push_back(DecodeLater(ById({"blocker"}, {1}), &context));
  }
  AwaitWaiting(kMaxQueueSteps);
  grpc::ClientContext context;
  v1::DecodeResponse response;
  const grpc::Status status = gdn_->Decode(&context, ById({"a"}, {1}, true), &response);
  EXPECT_EQ(status.error_code(), grpc::RESOURCE_EXHAUSTED);
  EXPECT_EQ(ReasonOf(status), "QUEUE_FULL");
  EXPECT_EQ(DetailOf<google::rpc::RetryInfo>(DetailsOf(status)).retry_delay().nanos(), 20'000'000);
  const auto pushback = context.GetServerTrailingMetadata().find("grpc-retry-pushback-ms");
  ASSERT_NE(pushback, context.GetServerTrailingMetadata().end());
  EXPECT_EQ(pushback->second, "20");
  backend_.OpenGate();
  EXPECT_TRUE(blocked.get().ok());
  for (std::future<grpc::Status>& call : waiting) EXPECT_TRUE(call.get().ok());
  EXPECT_EQ(PositionOf("blocker"), kMaxQueueSteps);
}

TEST_F(ServiceTest, RowsThatWaitAreBounded) {
  max_queue_rows_ = 4;
  Host();
  std::future<grpc::Status> blocked = BlockEngine();
  grpc::ClientContext context;
  std::future<grpc::Status> waiting = DecodeLater(ById({"a", "b", "c"}, {1, 1, 1}, true), &context);
  AwaitWaiting(2);
  const grpc::Status status = Decode(ById({"d"}, {1}, true));
  EXPECT_EQ(status.error_code(), grpc::RESOURCE_EXHAUSTED);
  EXPECT_EQ(ReasonOf(status), "QUEUE_FULL");
  backend_.OpenGate();
  EXPECT_TRUE(blocked.get().ok());
  EXPECT_TRUE(waiting.get().ok());
}

// The device writes where gRPC sends from; what the pool has no room for goes another way.
TEST_F(ServiceTest, AnswersAreMadeInTheBackendsMemory) {
  const auto memory = std::make_shared<std::vector<std::byte>>(8192);
  hosted_.output_pool = std::make_shared<HostPool>(memory, memory->data(), memory->size());
  std::byte* block = hosted_.output_pool->Take(1);
  Host();
  FakeState a;
  v1::DecodeResponse response;
  ASSERT_TRUE(Decode(ById({"a"}, {1}, true), &response).ok());
  EXPECT_EQ(response.output(), OutputOf(Hidden({1}), &a));
  EXPECT_TRUE(backend_.last_run().direct);
  while (hosted_.output_pool->bytes_taken() > 4096) std::this_thread::yield();  // it is sent
  ASSERT_EQ(hosted_.output_pool->Take(1), block + 4096);
  ASSERT_TRUE(Decode(ById({"a"}, {2}), &response).ok());
  EXPECT_EQ(response.output(), OutputOf(Hidden({2}), &a));
  EXPECT_FALSE(backend_.last_run().direct);
}

TEST_F(ServiceTest, ManyClientsAtOnce) {
  Host();
  constexpr int kSteps = 50;
  std::vector<std::thread> clients;
  for (const char* id : {"a", "b", "c", "d"}) {
    clients.emplace_back([this, id] {
      const auto stub = v1::GdnService::NewStub(NewChannel());
      FakeState state;
      for (int i = 0; i < kSteps; ++i) {
        const auto number = static_cast<float>(i);
        grpc::ClientContext context;
        v1::DecodeResponse response;
        const grpc::Status status = stub->Decode(&context, ById({id}, {number}, i == 0), &response);
        EXPECT_TRUE(status.ok()) << status.error_message();
        EXPECT_EQ(response.output(), OutputOf(Hidden({number}), &state));
      }
    });
  }
  for (std::thread& client : clients) client.join();
  for (const char* id : {"a", "b", "c", "d"}) EXPECT_EQ(PositionOf(id), uint64_t{kSteps});
}

// One before its step is handed in, one once its answer has gone.
TEST_F(ServiceTest, ACallSendsAnswersOfOthers) {
  Host();
  EndEngine();  // so that nobody else sends
  std::vector<std::future<void>> sent;
  for (int i = 0; i < 2; ++i) {
    const auto promise = std::make_shared<std::promise<void>>();
    sent.push_back(promise->get_future());
    auto step = std::make_shared<Step>();
    step->done = [promise](const Fault&, const StepAnswer&) { promise->set_value(); };
    engine_->outbox()->Put({std::move(step), {}, {}});
  }
  EXPECT_EQ(ReasonOf(Decode(ById({"a"}, {1}, true))), "DRAINING");
  for (const std::future<void>& one : sent) one.wait();
}

TEST_F(ServiceTest, CallsThatWaitAtTheEndAreRefused) {
  Host();
  std::future<grpc::Status> blocked = BlockEngine();
  grpc::ClientContext context;
  std::future<grpc::Status> waiting = DecodeLater(ById({"blocker"}, {2}), &context);
  AwaitWaiting(2);
  std::thread end([this] { EndEngine(); });
  backend_.OpenGate();
  end.join();
  EXPECT_TRUE(blocked.get().ok());
  const grpc::Status status = waiting.get();  // it may have run before the end
  EXPECT_TRUE(status.ok() || ReasonOf(status) == "DRAINING");
  EXPECT_EQ(ReasonOf(Decode(ById({"a"}, {1}, true))), "DRAINING");
  EXPECT_EQ(ReasonOf(Raw("/gdn.v1.SequenceService/ListSequences", "")), "DRAINING");
}

class ServiceInFlightTest : public ServiceHarness {
 protected:
  ServiceInFlightTest() : ServiceHarness(/*shared_memory=*/false, /*depth=*/2) {}
};

TEST_F(ServiceInFlightTest, TheHeadersOfACallThatRunsAloneComeBeforeItsAnswer) {
  Host();
  backend_.CloseGate();
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  v1::DecodeResponse response;
  grpc::Status status;
  const auto call = gdn_->AsyncDecode(&context, ById({"a"}, {1}, true), &queue);
  call->ReadInitialMetadata(&context);
  void* tag = nullptr;
  bool ok = false;
  const auto limit = std::chrono::system_clock::now() + std::chrono::seconds(10);
  EXPECT_EQ(queue.AsyncNext(&tag, &ok, limit), grpc::CompletionQueue::GOT_EVENT);
  backend_.OpenGate();
  call->Finish(&response, &status, &status);
  while (tag != &status) ASSERT_TRUE(queue.Next(&tag, &ok));
  EXPECT_TRUE(status.ok());
  EXPECT_EQ(response.slots_size(), 1);
}

// What is poisoned are the rows that ran; calls that are no steps are answered as ever.
TEST_F(ServiceTest, ALostDeviceIsAnInternalError) {
  Host();
  ASSERT_TRUE(Decode(ById({"a", "untouched"}, {1, 1}, true)).ok());
  backend_.LoseDevice();
  const grpc::Status status = Decode(ById({"a"}, {2}));
  EXPECT_EQ(status.error_code(), grpc::INTERNAL);
  EXPECT_EQ(ReasonOf(status), "DEVICE_ERROR");
  EXPECT_EQ(ReasonOf(Decode(ById({"b"}, {2}, true))), "DEVICE_ERROR");
  grpc::ClientContext context;
  v1::GetSequenceRequest get;
  get.set_request_id("a");
  v1::GetSequenceResponse shown;
  ASSERT_TRUE(sequences_->GetSequence(&context, get, &shown).ok());
  EXPECT_EQ(shown.sequence().state(), v1::SEQUENCE_STATE_POISONED);
  EXPECT_EQ(PositionOf("untouched"), 1u);
  EXPECT_EQ(ReasonOf(Decode(ById({"untouched"}, {2}))), "DEVICE_ERROR");
  std::string listed;
  ASSERT_TRUE(Raw("/gdn.v1.SequenceService/ListSequences", "", &listed).ok());
  v1::ListSequencesResponse list;
  ASSERT_TRUE(list.ParseFromString(listed));
  ASSERT_EQ(list.sequences_size(), 2);  // and "b" did not begin
  EXPECT_EQ(list.sequences(1).request_id(), "untouched");
  EXPECT_EQ(list.sequences(1).state(), v1::SEQUENCE_STATE_LIVE);
}

}  // namespace
}  // namespace gdn::test
