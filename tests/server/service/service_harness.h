// A whole server over a fake backend, behind a Unix socket, and clients of it.
#pragma once

#include <future>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "grpcpp/channel.h"
#include "grpcpp/client_context.h"
#include "grpcpp/support/channel_arguments.h"
#include "gtest/gtest.h"
#include "server/engine/engine_thread.h"
#include "server/metrics/engine_meter.h"
#include "server/service/grpc_server.h"
#include "tests/testing/fake_backend.h"
#include "tests/testing/fake_device_memory.h"
#include "tests/testing/steps.h"

namespace gdn::test {

class ServiceHarness : public ::testing::Test {
 protected:
  static constexpr int64_t kMaxMessageBytes = 64 << 10;
  static constexpr size_t kMaxQueueSteps = 100;

  // Layers 3 and 7, with the limits of FakeShape(); NOT_READY until Host().
  // The backend takes `depth` batches at a time.
  explicit ServiceHarness(bool shared_memory = false, int depth = 1);
  ~ServiceHarness() override;
  void Host();
  // The engine closes: whoever waits is refused.
  void EndEngine() { thread_.reset(); }

  std::shared_ptr<grpc::Channel> NewChannel() const;
  std::shared_ptr<grpc::Channel> NewChannel(grpc::ChannelArguments arguments) const;

  // A step by id at layer 3 with one token a row, whose first number is given.
  static v1::DecodeRequest ById(const std::vector<std::string>& ids,
                                std::initializer_list<float> tokens, bool create = false);
  static v1::DecodeRequest BySlot(const v1::DecodeResponse& begun,
                                  std::initializer_list<float> tokens);
  grpc::Status Decode(const v1::DecodeRequest& request, v1::DecodeResponse* response = nullptr);
  // A call of this one message, whatever it is, and its one answer; with `authorization_` where
  // that is not empty.
  grpc::Status Raw(const std::string& method, std::string_view bytes,
                   std::string* response = nullptr);
  // Of the sequence at layer 3, through the service.
  uint64_t PositionOf(const std::string& id);
  // Starts a decode that runs until the backend's gate is opened.
  std::future<grpc::Status> BlockEngine();
  // Returns once so many steps wait or run.
  void AwaitWaiting(size_t steps) const {
    while (engine_->waiting() != steps) std::this_thread::yield();
  }

  const bool shared_memory_;
  size_t max_queue_rows_ = 1 << 20;
  FakeBackend backend_;
  FakeDeviceMemoryOpener opener_;
  Regions regions_{"gdn", &opener_};
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<EngineThread> thread_;
  Hosted hosted_;
  Readiness readiness_;
  EngineMeter meter_{readiness_.metrics.get()};
  std::string folder_;
  std::string authorization_;
  std::unique_ptr<GrpcServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::GdnService::Stub> gdn_;
  std::unique_ptr<v1::SequenceService::Stub> sequences_;
};

// The reason that a status carries, or "".
std::string ReasonOf(const google::rpc::Status& status);
std::string ReasonOf(const grpc::Status& status);

// The first detail of its type, or an empty one.
template <typename Detail>
Detail DetailOf(const google::rpc::Status& status) {
  Detail detail;
  for (const auto& any : status.details()) {
    if (any.Is<Detail>()) {
      any.UnpackTo(&detail);
      break;
    }
  }
  return detail;
}
google::rpc::Status DetailsOf(const grpc::Status& status);

// Messages that no generated parser takes, of every kind of damage.
std::vector<std::string> HostileMessages();

}  // namespace gdn::test
