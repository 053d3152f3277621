// The whole service on the null backend: what a step costs beside its computation.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "server/engine/engine_thread.h"
#include "server/service/grpc_server.h"
#include "tests/bench/null_model.h"
#include "tests/testing/null_backend.h"

namespace gdn {

class NullServer {
 public:
  // Listens on `addresses`; `reflection` as the server has it.
  NullServer(const BackendShape& shape, const std::vector<std::string>& addresses, bool reflection)
      : backend_(shape), engine_(NullOptions(shape), &backend_) {
    hosted_.limits = NullLimits(shape);
    hosted_.limits.allow_synthetic_input = true;
    hosted_.engine = &engine_;
    readiness_.hosted = &hosted_;
    thread_ = std::make_unique<EngineThread>(&engine_);
    server_ = *GrpcServer::Start(
        readiness_,
        {.addresses = addresses, .limits = {.message_bytes = 64 << 20}, .reflection = reflection});
  }
  ~NullServer() {
    thread_.reset();
    server_->Shutdown(absl::ZeroDuration());
  }

  // The addresses listened on, with the ports that were given.
  const std::vector<std::string>& addresses() const { return server_->addresses(); }
  const NullBackend& backend() const { return backend_; }
  int slots_used() const { return engine_.slots_used(); }

 private:
  NullBackend backend_;
  Engine engine_;
  Hosted hosted_;
  Readiness readiness_;
  std::unique_ptr<EngineThread> thread_;
  std::unique_ptr<GrpcServer> server_;
};

}  // namespace gdn
