// The whole service over a backend of choice, with shared memory, and how long the backend took.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <utility>

#include "server/engine/engine_thread.h"
#include "server/service/grpc_server.h"
#include "tests/bench/null_model.h"

namespace gdn {

// Another backend, and the time from the last Begin to its End.
class TimedBackend final : public Backend {
 public:
  explicit TimedBackend(std::unique_ptr<Backend> backend) : backend_(std::move(backend)) {}

  std::string_view name() const override { return backend_->name(); }
  absl::Status LoadLayer(int layer, const LayerWeights& weights) override {
    return backend_->LoadLayer(layer, weights);
  }
  int depth() const override { return backend_->depth(); }
  absl::Status Begin(const Batch& batch) override {
    begin_ = Clock::now();
    return backend_->Begin(batch);
  }
  absl::Status End(std::span<RowFault> faults) override {
    absl::Status status = backend_->End(faults);
    spent_ = std::chrono::duration<double, std::micro>(Clock::now() - begin_).count();
    return status;
  }
  absl::Status ReadAnswer(int layer, int32_t slot, std::span<std::byte> out) override {
    return backend_->ReadAnswer(layer, slot, out);
  }

  double microseconds() const { return spent_; }

 private:
  using Clock = std::chrono::steady_clock;

  const std::unique_ptr<Backend> backend_;
  Clock::time_point begin_;
  std::atomic<double> spent_ = 0;
};

class PlanesServer {
 public:
  // One layer of `shape`, which `backend` has loaded. `opener` may be null.
  PlanesServer(const std::string& address, const BackendShape& shape,
               std::unique_ptr<Backend> backend, std::unique_ptr<DeviceMemoryOpener> opener)
      : backend_(std::move(backend)),
        opener_(std::move(opener)),
        regions_("gdn", opener_.get()),
        engine_(NullOptions(shape), &backend_) {
    hosted_.limits = NullLimits(shape);
    hosted_.limits.allow_shared_memory = true;
    hosted_.engine = &engine_;
    hosted_.regions = &regions_;
    readiness_.hosted = &hosted_;
    thread_ = std::make_unique<EngineThread>(&engine_);
    server_ = *GrpcServer::Start(
        readiness_,
        {.addresses = {address}, .limits = {.message_bytes = 64 << 20}, .shared_memory = true});
  }
  ~PlanesServer() {
    thread_.reset();
    server_->Shutdown(absl::ZeroDuration());
  }

  const TimedBackend& backend() const { return backend_; }

 private:
  TimedBackend backend_;
  const std::unique_ptr<DeviceMemoryOpener> opener_;
  Regions regions_;
  Engine engine_;
  Hosted hosted_;
  Readiness readiness_;
  std::unique_ptr<EngineThread> thread_;
  std::unique_ptr<GrpcServer> server_;
};

}  // namespace gdn
