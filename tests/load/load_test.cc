// The programs of the load: the echo's answers parse, and the open loop counts what became of
// calls.
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "grpcpp/server_builder.h"
#include "gtest/gtest.h"
#include "server/service/message.h"
#include "tests/bench/null_server.h"
#include "tests/load/echo_service.h"
#include "tests/load/open_loop.h"

namespace gdn {
namespace {

using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

std::string Address(const char* name) {
  return "unix:" + testing::TempDir() + "load_test_" + std::to_string(getpid()) + name;
}

// Answers nothing until it is told to.
class HeldService : public v1::GdnService::WithRawCallbackMethod_Decode<v1::GdnService::Service> {
 public:
  void AwaitHeld(size_t count) {
    std::unique_lock lock(mutex_);
    came_.wait(lock, [&] { return held_.size() >= count; });
  }
  void Release() {
    std::vector<grpc::ServerUnaryReactor*> held;
    {
      const std::lock_guard lock(mutex_);
      released_ = true;
      held = std::exchange(held_, {});
    }
    for (grpc::ServerUnaryReactor* reactor : held) reactor->Finish(grpc::Status::OK);
  }
  // That were held at a time.
  size_t most() const { return most_; }

 private:
  grpc::ServerUnaryReactor* Decode(grpc::CallbackServerContext* context, const grpc::ByteBuffer*,
                                   grpc::ByteBuffer* response) override {
    *response = Serialize(v1::DecodeResponse());
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    const std::lock_guard lock(mutex_);
    if (released_) {
      reactor->Finish(grpc::Status::OK);
    } else {
      held_.push_back(reactor);
      most_ = std::max(most_, held_.size());
      came_.notify_all();
    }
    return reactor;
  }

  std::mutex mutex_;
  std::condition_variable came_;
  std::vector<grpc::ServerUnaryReactor*> held_;
  size_t most_ = 0;
  bool released_ = false;
};

TEST(Echo, AnswersTheRequestAsOutput) {
  for (const size_t bytes : {0, 1, 200, 1 << 20}) {
    v1::DecodeRequest request;
    request.set_layer(3);
    request.mutable_batch()->add_request_ids("a");
    request.set_input(std::string(bytes, 'x'));
    v1::DecodeResponse response;
    ASSERT_TRUE(Parse(AsOutput(Serialize(request)), &response));
    EXPECT_EQ(response.output(), request.SerializeAsString());
    EXPECT_EQ(response.ByteSizeLong(), AsOutput(Serialize(request)).Length());
  }
}

TEST(Echo, AnswersAnEmptyMessage) {
  v1::DecodeResponse response;
  ASSERT_TRUE(Parse(AsOutput(Serialize(v1::DecodeRequest())), &response));
  EXPECT_EQ(response.output(), "");
}

TEST(OpenLoop, CountsAnswers) {
  const NullServer server(NullShape(/*slots=*/256), {Address("null")}, /*reflection=*/false);
  OpenLoop loop(server.addresses()[0], {.hidden_size = 2048});
  const Tally closed = loop.Closed(/*seconds=*/0.2);
  EXPECT_THAT(closed.latencies_ms, SizeIs(closed.sent));
  EXPECT_GE(closed.seconds, 0.2);
  EXPECT_LE(closed.Percentile(0.5), closed.Percentile(0.99));
  const Tally open = loop.Open(/*rate=*/200, /*seconds=*/0.2);
  EXPECT_THAT(open.latencies_ms, SizeIs(open.sent));
  EXPECT_THAT(open.latencies_ms, Not(IsEmpty()));
  EXPECT_EQ(server.backend().rows(),
            static_cast<int64_t>(closed.sent + open.sent) * LoopWork().rows);
}

TEST(OpenLoop, LoopsSideBySideShareNoSequence) {
  const NullServer server(NullShape(/*slots=*/256), {Address("null")}, /*reflection=*/false);
  Tally together;
  for (const int number : {0, 1}) {
    OpenLoop loop(server.addresses()[0], {.rows = 4, .synthetic = true, .loop = number});
    together.Add(loop.Open(/*rate=*/500, /*seconds=*/0.2));
  }
  EXPECT_THAT(together.wrong, IsEmpty());
  EXPECT_THAT(together.latencies_ms, SizeIs(together.sent));
  EXPECT_EQ(server.backend().rows(), static_cast<int64_t>(together.sent) * 4);
  EXPECT_EQ(server.slots_used(), 2 * 16 * 4);
}

TEST(OpenLoop, SendsNoMoreThanMayBeInFlight) {
  HeldService service;
  grpc::ServerBuilder builder;
  builder.AddListeningPort(Address("held"), grpc::InsecureServerCredentials());
  builder.RegisterService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  OpenLoop loop(Address("held"), {.rows = 1, .synthetic = true});
  constexpr double kRate = 1e7;
  constexpr double kSeconds = 0.5;
  Tally tally;
  std::thread sender([&] { tally = loop.Open(kRate, kSeconds); });
  service.AwaitHeld(OpenLoop::kMostInFlight);
  service.Release();
  sender.join();
  EXPECT_EQ(service.most(), OpenLoop::kMostInFlight);
  EXPECT_THAT(tally.wrong, IsEmpty());
  EXPECT_THAT(tally.latencies_ms, SizeIs(tally.sent));
  EXPECT_LT(tally.sent, kRate * kSeconds);
}

TEST(OpenLoop, TellsTypedRefusalsFromOtherEnds) {
  EchoService echo;
  grpc::ServerBuilder builder;
  builder.AddListeningPort(Address("echo"), grpc::InsecureServerCredentials());
  builder.RegisterService(&echo);
  builder.SetMaxReceiveMessageSize(16);  // RESOURCE_EXHAUSTED without a reason
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  OpenLoop loop(Address("echo"), {.hidden_size = 8});
  const Tally tally = loop.Open(/*rate=*/100, /*seconds=*/0.1);
  EXPECT_THAT(tally.latencies_ms, IsEmpty());
  EXPECT_EQ(tally.refused, 0);
  EXPECT_THAT(tally.wrong, SizeIs(1));
}

}  // namespace
}  // namespace gdn
