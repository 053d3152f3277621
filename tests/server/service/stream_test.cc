#include <map>
#include <thread>

#include "server/service/step_stream.h"
#include "tests/server/service/service_harness.h"

namespace gdn::test {
namespace {

class StreamTest : public ServiceHarness {
 protected:
  // A stream and its context.
  struct Client {
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientReaderWriter<v1::StreamRequest, v1::StreamResponse>> stream;

    bool SendDecode(uint64_t tag, const v1::DecodeRequest& step) {
      v1::StreamRequest request;
      request.set_tag(tag);
      *request.mutable_decode() = step;
      return stream->Write(request);
    }
    bool SendPrefill(uint64_t tag, const v1::DecodeRequest& step) {
      v1::StreamRequest request;
      request.set_tag(tag);
      request.mutable_prefill()->ParseFromString(step.SerializeAsString());
      return stream->Write(request);
    }
    v1::StreamResponse Receive() {
      v1::StreamResponse response;
      EXPECT_TRUE(stream->Read(&response));
      return response;
    }
    // Nothing more comes: how the stream ended.
    grpc::Status End() {
      v1::StreamResponse response;
      EXPECT_FALSE(stream->Read(&response)) << response.ShortDebugString();
      return stream->Finish();
    }
  };

  std::unique_ptr<Client> Open() {
    auto client = std::make_unique<Client>();
    client->stream = gdn_->Stream(&client->context);
    return client;
  }
  // Closes the gate before a decode of "a".
  void Block(Client& client, uint64_t tag) {
    backend_.CloseGate();
    EXPECT_TRUE(client.SendDecode(tag, ById({"a"}, {1}, true)));
    backend_.AwaitBlocked();
  }
};

TEST_F(StreamTest, AnswersEveryMessageByItsTag) {
  Host();
  const auto client = Open();
  ASSERT_TRUE(client->SendPrefill(7, ById({"a"}, {1}, true)));
  ASSERT_TRUE(client->SendDecode(8, ById({"b"}, {2}, true)));
  std::map<uint64_t, v1::StreamResponse> answers;
  for (int i = 0; i < 2; ++i) {
    v1::StreamResponse response = client->Receive();
    answers[response.tag()] = response;
  }
  FakeState a;
  ASSERT_TRUE(answers[7].has_prefill());
  ASSERT_TRUE(answers[8].has_decode());
  const std::vector<float> row = Foretell(Hidden({1}), &a);
  EXPECT_EQ(answers[7].prefill().output(),
            std::string(reinterpret_cast<const char*>(row.data()), 16));
  EXPECT_EQ(answers[8].decode().slots_size(), 1);
  client->stream->WritesDone();
  EXPECT_TRUE(client->End().ok());
}

// Steps before, at and after the loss, on a stream that lives on.
TEST_F(StreamTest, ALostDeviceIsInBand) {
  Host();
  const auto client = Open();
  ASSERT_TRUE(client->SendDecode(1, ById({"a", "b"}, {1, 2}, true)));
  EXPECT_TRUE(client->Receive().has_decode());
  backend_.LoseDevice();
  for (const uint64_t tag : {2, 3}) {
    ASSERT_TRUE(client->SendDecode(tag, ById({"a"}, {3})));
    const v1::StreamResponse response = client->Receive();
    EXPECT_EQ(response.tag(), tag);
    EXPECT_EQ(response.status().code(), grpc::INTERNAL);
    EXPECT_EQ(ReasonOf(response.status()), "DEVICE_ERROR");
  }
  EXPECT_EQ(PositionOf("a"), 1u);
  EXPECT_EQ(PositionOf("b"), 1u);
  client->stream->WritesDone();
  EXPECT_TRUE(client->End().ok());
}

TEST_F(StreamTest, AFaultIsInBandAndTheStreamGoesOn) {
  Host();
  const auto client = Open();
  ASSERT_TRUE(client->SendDecode(1, ById({"gone"}, {1})));
  v1::StreamResponse response = client->Receive();
  EXPECT_EQ(response.tag(), 1u);
  EXPECT_EQ(response.status().code(), grpc::NOT_FOUND);
  EXPECT_EQ(ReasonOf(response.status()), "SEQUENCE_NOT_FOUND");
  ASSERT_TRUE(client->SendDecode(2, ById({}, {})));  // refused on arrival
  response = client->Receive();
  EXPECT_EQ(response.tag(), 2u);
  EXPECT_EQ(ReasonOf(response.status()), "MALFORMED_BATCH");
  ASSERT_TRUE(client->SendDecode(3, ById({"a"}, {1}, true)));
  EXPECT_TRUE(client->Receive().has_decode());
  client->stream->WritesDone();
  EXPECT_TRUE(client->End().ok());
}

// The message may arrive before, at or after the cancel, also when the stream is already over: its
// step must not outlive the stream.
TEST_F(StreamTest, CancelledWhileItsMessageArrives) {
  Host();
  for (int round = 0; round < 20; ++round) {
    const auto blocked = Open();
    Block(*blocked, 1);
    for (int i = 0; i < 50; ++i) {
      const auto client = Open();
      client->SendDecode(1, ById({"b"}, {1}, true));
      for (int pause = 0; pause < i; ++pause) std::this_thread::yield();
      client->context.TryCancel();
      EXPECT_FALSE(client->stream->Finish().ok());
    }
    backend_.OpenGate();
    EXPECT_TRUE(blocked->Receive().has_decode());
    AwaitWaiting(0);
  }
}

TEST_F(StreamTest, AnswersComeWhenTheyAreDone) {
  Host();
  ASSERT_TRUE(Decode(ById({"b", "c"}, {1, 1}, true)).ok());
  const auto client = Open();
  Block(*client, 1);
  ASSERT_TRUE(client->SendPrefill(2, ById({"b"}, {1})));
  ASSERT_TRUE(client->SendDecode(3, ById({"c"}, {1})));
  AwaitWaiting(3);
  backend_.OpenGate();
  std::vector<uint64_t> tags;
  for (int i = 0; i < 3; ++i) tags.push_back(client->Receive().tag());
  EXPECT_EQ(tags, (std::vector<uint64_t>{1, 3, 2}));  // the decode passed the prefill
}

TEST_F(StreamTest, AMessageWithoutAStepEndsTheStreamOnceAllIsAnswered) {
  Host();
  const auto client = Open();
  Block(*client, 1);
  v1::StreamRequest empty;
  empty.set_tag(2);
  ASSERT_TRUE(client->stream->Write(empty));
  backend_.OpenGate();
  EXPECT_TRUE(client->Receive().has_decode());
  const grpc::Status status = client->End();
  EXPECT_EQ(status.error_code(), grpc::INVALID_ARGUMENT);
  EXPECT_EQ(ReasonOf(status), "MALFORMED_BATCH");
}

TEST_F(StreamTest, AMessageThatDoesNotParseEndsTheStream) {
  Host();
  for (const std::string& bytes : HostileMessages()) {
    const grpc::Status status = Raw("/gdn.v1.GdnService/Stream", bytes);
    EXPECT_EQ(status.error_code(), grpc::INVALID_ARGUMENT);
    EXPECT_EQ(ReasonOf(status), "MALFORMED_MESSAGE");
  }
  EXPECT_EQ(engine_->waiting(), 0u);
}

TEST_F(StreamTest, AStreamBeforeTheServerIsReadyEnds) {
  const auto client = Open();
  client->SendDecode(1, ById({"a"}, {1}, true));
  EXPECT_EQ(ReasonOf(client->End()), "NOT_READY");
}

TEST_F(StreamTest, AHalfClosedStreamAnswersWhatIsUnderWay) {
  Host();
  const auto client = Open();
  Block(*client, 1);
  for (uint64_t tag = 2; tag <= 5; ++tag) {
    ASSERT_TRUE(client->SendDecode(tag, ById({"a"}, {1})));
  }
  client->stream->WritesDone();
  AwaitWaiting(5);
  backend_.OpenGate();
  for (uint64_t tag = 1; tag <= 5; ++tag) EXPECT_EQ(client->Receive().tag(), tag);
  EXPECT_TRUE(client->End().ok());
}

TEST_F(StreamTest, AnEmptyStreamEndsOk) {
  Host();
  const auto client = Open();
  client->stream->WritesDone();
  EXPECT_TRUE(client->End().ok());
}

TEST_F(StreamTest, ReadingStopsWhileManyStepsAreUnderWay) {
  Host();
  constexpr uint64_t kSteps = 3 * StepStream::kMostUnderWay;
  const auto client = Open();
  Block(*client, 0);
  std::thread writer([&] {
    for (uint64_t tag = 1; tag < kSteps; ++tag) {
      EXPECT_TRUE(client->SendDecode(tag, ById({"a"}, {1})));
    }
    client->stream->WritesDone();
  });
  AwaitWaiting(StepStream::kMostUnderWay);
  // Another stream's calls are answered meanwhile, and this one's do not become more.
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(Raw("/gdn.v1.GdnService/GetServerInfo", "").ok());
  EXPECT_EQ(engine_->waiting(), StepStream::kMostUnderWay);
  backend_.OpenGate();
  for (uint64_t tag = 0; tag < kSteps; ++tag) EXPECT_EQ(client->Receive().tag(), tag);
  writer.join();
  EXPECT_TRUE(client->End().ok());
  EXPECT_EQ(PositionOf("a"), kSteps);
}

// 16 bytes each: the third reaches the bound.
TEST_F(StreamTest, ReadingStopsWhileManyBytesAreUnderWay) {
  Host();
  hosted_.max_stream_bytes = 40;
  constexpr uint64_t kSteps = 20;
  const auto client = Open();
  Block(*client, 0);
  for (uint64_t tag = 1; tag < kSteps; ++tag) {
    EXPECT_TRUE(client->SendDecode(tag, ById({"a"}, {1})));
  }
  client->stream->WritesDone();
  AwaitWaiting(3);
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(Raw("/gdn.v1.GdnService/GetServerInfo", "").ok());
  EXPECT_EQ(engine_->waiting(), 3u);
  backend_.OpenGate();
  for (uint64_t tag = 0; tag < kSteps; ++tag) EXPECT_EQ(client->Receive().tag(), tag);
  EXPECT_TRUE(client->End().ok());
}

// It sends and does not read: its steps stop, those of others do not, and once it reads it has all.
TEST_F(StreamTest, ASlowReaderHurtsOnlyItself) {
  Host();
  constexpr uint64_t kSteps = 2000;
  constexpr int kTokens = 32;
  grpc::ChannelArguments arguments;  // without large windows
  arguments.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 1 << 10);
  arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  const auto stub = v1::GdnService::NewStub(NewChannel(arguments));
  Client slow;
  slow.stream = stub->Stream(&slow.context);
  std::thread writer([&slow] {
    v1::DecodeRequest step = ById({"slow"}, {}, true);
    step.mutable_batch()->add_token_counts(kTokens);
    step.set_input(std::string(kTokens * 16, '\0'));
    for (uint64_t tag = 0; tag < kSteps; ++tag) EXPECT_TRUE(slow.SendPrefill(tag, step));
    slow.stream->WritesDone();
  });
  ASSERT_TRUE(Decode(ById({"quick"}, {1}, true)).ok());
  uint64_t quick = 1;
  for (uint64_t slow_steps = 0, still = 0; still < 100; ++still) {
    ASSERT_TRUE(Decode(ById({"quick"}, {1})).ok());
    ++quick;
    if (engine_->steps_taken() - quick != slow_steps) still = 0;
    slow_steps = engine_->steps_taken() - quick;
    ASSERT_LT(slow_steps, kSteps) << "it was not held up";
  }
  for (uint64_t tag = 0; tag < kSteps; ++tag) EXPECT_EQ(slow.Receive().tag(), tag);
  writer.join();
  EXPECT_TRUE(slow.End().ok());
  EXPECT_EQ(PositionOf("slow"), kSteps * kTokens);
}

TEST_F(StreamTest, ACancelledStreamEndsWithItsStepsUnderWay) {
  Host();
  const auto client = Open();
  Block(*client, 1);
  for (uint64_t tag = 2; tag <= 10; ++tag) {
    ASSERT_TRUE(client->SendDecode(tag, ById({"a"}, {1})));
  }
  AwaitWaiting(10);
  client->context.TryCancel();
  EXPECT_EQ(client->End().error_code(), grpc::CANCELLED);
  backend_.OpenGate();
  AwaitWaiting(0);
  const uint64_t position = PositionOf("a");  // some steps may have run before the server heard
  EXPECT_GE(position, 1u);
  EXPECT_LE(position, 10u);
  EXPECT_TRUE(Decode(ById({"a"}, {1})).ok());
}

TEST_F(StreamTest, AStreamCancelledWhileAnswersAreUnreadEnds) {
  Host();
  {
    const auto client = Open();
    for (uint64_t tag = 1; tag <= 40; ++tag) {
      ASSERT_TRUE(client->SendDecode(tag, ById({"a"}, {1}, tag == 1)));
    }
    client->context.TryCancel();
  }
  AwaitWaiting(0);
}

TEST_F(StreamTest, StreamsOfManyClientsAtOnce) {
  Host();
  std::vector<std::thread> clients;
  for (const char* id : {"a", "b", "c", "d"}) {
    clients.emplace_back([this, id] {
      constexpr uint64_t kSteps = 100;
      constexpr uint64_t kUnderWay = 20;  // of all together fewer than the queue takes
      const auto client = Open();
      for (uint64_t tag = 0; tag < kSteps + kUnderWay; ++tag) {
        if (tag < kSteps) {
          EXPECT_TRUE(client->SendDecode(tag, ById({id}, {1}, tag == 0)));
        }
        if (tag < kUnderWay) continue;
        const v1::StreamResponse response = client->Receive();
        EXPECT_EQ(response.tag(), tag - kUnderWay);
        EXPECT_TRUE(response.has_decode()) << response.status().message();
      }
      client->stream->WritesDone();
      EXPECT_TRUE(client->End().ok());
    });
  }
  for (std::thread& client : clients) client.join();
}

TEST_F(StreamTest, TheEndOfTheEngineIsInBand) {
  Host();
  const auto client = Open();
  ASSERT_TRUE(client->SendDecode(1, ById({"a"}, {1}, true)));
  EXPECT_TRUE(client->Receive().has_decode());
  EndEngine();
  ASSERT_TRUE(client->SendDecode(2, ById({"a"}, {1})));
  EXPECT_EQ(ReasonOf(client->Receive().status()), "DRAINING");
  client->stream->WritesDone();
  EXPECT_TRUE(client->End().ok());
}

TEST_F(StreamTest, AShutdownEndsAnIdleStream) {
  Host();
  const auto client = Open();
  ASSERT_TRUE(client->SendDecode(1, ById({"a"}, {1}, true)));
  EXPECT_TRUE(client->Receive().has_decode());
  EndEngine();
  server_->Shutdown(absl::ZeroDuration());
  EXPECT_FALSE(client->End().ok());
}

}  // namespace
}  // namespace gdn::test
