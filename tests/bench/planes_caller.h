// One call at a time on a connection of its own, and an echo to call.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>

#include "grpcpp/create_channel.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/server_builder.h"
#include "server/service/transport.h"
#include "tests/bench/bare_echo.h"

namespace gdn {

[[noreturn]] inline void Fail(const std::string& why) {
  std::fprintf(stderr, "planes_bench: %s\n", why.c_str());
  std::exit(1);
}

// One that takes Prefills too, and answers them late.
class LateEcho : public v1::GdnService::WithRawCallbackMethod_Prefill<BareEcho> {
 public:
  void set_wait(std::chrono::nanoseconds wait) { wait_ = wait; }

 private:
  // Waits as the engine's thread does, without sleep.
  grpc::ServerUnaryReactor* Prefill(grpc::CallbackServerContext* context,
                                    const grpc::ByteBuffer* request,
                                    grpc::ByteBuffer* response) override {
    const auto end = std::chrono::steady_clock::now() + wait_.load();
    while (std::chrono::steady_clock::now() < end) {
    }
    *response = *request;
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

  std::atomic<std::chrono::nanoseconds> wait_{};
};

// As tuned as the server is.
class Echo {
 public:
  // `unix_address`, and a port of TCP.
  explicit Echo(const std::string& unix_address) {
    grpc::ServerBuilder builder;
    TuneServer({.message_bytes = 64 << 20}, &builder);
    builder.AddListeningPort(unix_address, grpc::InsecureServerCredentials());
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    if (server_ == nullptr) Fail("the echo does not start");
  }
  ~Echo() { server_->Shutdown(); }

  // How late Prefills are answered.
  void set_wait(std::chrono::nanoseconds wait) { service_.set_wait(wait); }
  std::string tcp_address() const { return "127.0.0.1:" + std::to_string(port_); }

 private:
  LateEcho service_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

inline std::shared_ptr<grpc::Channel> Connect(const std::string& address) {
  grpc::ChannelArguments arguments;
  TuneChannel(&arguments);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

class Caller {
 public:
  explicit Caller(std::shared_ptr<grpc::Channel> channel) : stub_(std::move(channel)) {}

  grpc::ByteBuffer Call(const char* method, const grpc::ByteBuffer& request) {
    grpc::ClientContext context;
    grpc::ByteBuffer response;
    grpc::Status status;
    auto call = stub_.PrepareUnaryCall(&context, method, request, &queue_);
    call->StartCall();
    call->Finish(&response, &status, this);
    void* tag = nullptr;
    bool ok = false;
    if (!queue_.Next(&tag, &ok) || !status.ok()) Fail(status.error_message());
    return response;
  }

 private:
  grpc::GenericStub stub_;
  grpc::CompletionQueue queue_;
};

}  // namespace gdn
