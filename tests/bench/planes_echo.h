// An echo to call, beside the service.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <string>

#include "grpcpp/server_builder.h"
#include "server/service/transport.h"
#include "tests/bench/bare_echo.h"
#include "tests/bench/planes_board.h"

namespace gdn {

// One that takes Prefills too, and answers them late.
class LateEcho : public v1::GdnService::WithRawCallbackMethod_Prefill<BareEcho> {
 public:
  explicit LateEcho(const std::atomic<int64_t>* late_ns) : late_ns_(*late_ns) {}

 private:
  // Waits as the engine's thread does, without sleep.
  grpc::ServerUnaryReactor* Prefill(grpc::CallbackServerContext* context,
                                    const grpc::ByteBuffer* request,
                                    grpc::ByteBuffer* response) override {
    const auto end = std::chrono::steady_clock::now() + std::chrono::nanoseconds(late_ns_.load());
    while (std::chrono::steady_clock::now() < end) {
    }
    *response = *request;
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

  const std::atomic<int64_t>& late_ns_;
};

// As tuned as the server is.
class Echo {
 public:
  // At `unix_address`, and a port of TCP.
  Echo(const std::string& unix_address, const std::atomic<int64_t>* late_ns) : service_(late_ns) {
    grpc::ServerBuilder builder;
    TuneServer({.message_bytes = 64 << 20}, &builder);
    builder.AddListeningPort(unix_address, grpc::InsecureServerCredentials());
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    if (server_ == nullptr) Fail("the echo does not start");
  }
  ~Echo() { server_->Shutdown(); }

  std::string tcp_address() const { return "127.0.0.1:" + std::to_string(port_); }

 private:
  LateEcho service_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace gdn
