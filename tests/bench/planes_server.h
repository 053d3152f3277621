// The whole service over a backend of choice, with shared memory, and how long the backend took.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "server/engine/engine_thread.h"
#include "server/service/grpc_server.h"
#include "tests/bench/null_model.h"

namespace gdn {

// Another backend, and the time during which it has something to do: with a batch begun and not
// ended.
class TimedBackend final : public Backend {
 public:
  // Adds it to `spent_us`.
  TimedBackend(std::unique_ptr<Backend> backend, std::atomic<double>* spent_us)
      : backend_(std::move(backend)), spent_us_(*spent_us) {}

  std::string_view name() const override { return backend_->name(); }
  absl::Status LoadLayer(int layer, const LayerWeights& weights) override {
    return backend_->LoadLayer(layer, weights);
  }
  int depth() const override { return backend_->depth(); }
  absl::Status Begin(const Batch& batch) override {
    if (in_flight_++ == 0) begin_ = Clock::now();
    return backend_->Begin(batch);
  }
  absl::Status End(std::span<RowFault> faults) override {
    absl::Status status = backend_->End(faults);
    if (--in_flight_ > 0) return status;
    spent_us_ =
        spent_us_ + std::chrono::duration<double, std::micro>(Clock::now() - begin_).count();
    return status;
  }
  absl::Status ReadAnswer(int layer, int32_t slot, std::span<std::byte> out) override {
    return backend_->ReadAnswer(layer, slot, out);
  }

 private:
  using Clock = std::chrono::steady_clock;

  const std::unique_ptr<Backend> backend_;
  std::atomic<double>& spent_us_;
  int in_flight_ = 0;        // batches begun and not ended
  Clock::time_point begin_;  // of the first of them
};

// A backend, and what a server has of its device; null where it has none.
struct PlanesBackend {
  std::unique_ptr<Backend> backend;
  std::unique_ptr<DeviceMemoryOpener> opener;
  std::shared_ptr<HostPool> input_pool;
  std::shared_ptr<HostPool> output_pool;
  uint32_t prefill_chunk = 0;
};

class PlanesServer {
 public:
  // One layer of `shape`, which the backend has loaded. Adds to `spent_us` as TimedBackend does.
  PlanesServer(const std::vector<std::string>& addresses, const BackendShape& shape,
               PlanesBackend made, std::atomic<double>* spent_us)
      : backend_(std::move(made.backend), spent_us),
        opener_(std::move(made.opener)),
        regions_("gdn", opener_.get()),
        engine_(OptionsOf(shape, made.prefill_chunk), &backend_) {
    hosted_.limits = NullLimits(shape);
    hosted_.limits.allow_shared_memory = true;
    hosted_.engine = &engine_;
    hosted_.regions = &regions_;
    hosted_.input_pool = std::move(made.input_pool);
    hosted_.output_pool = std::move(made.output_pool);
    readiness_.hosted = &hosted_;
    thread_ = std::make_unique<EngineThread>(&engine_);
    server_ = *GrpcServer::Start(
        readiness_,
        {.addresses = addresses, .limits = {.message_bytes = 64 << 20}, .shared_memory = true});
  }
  ~PlanesServer() {
    thread_.reset();
    server_->Shutdown(absl::ZeroDuration());
  }

  const std::vector<std::string>& addresses() const { return server_->addresses(); }

 private:
  static EngineOptions OptionsOf(const BackendShape& shape, uint32_t prefill_chunk) {
    EngineOptions options = NullOptions(shape);
    options.prefill_chunk = prefill_chunk;
    options.replay_bytes = size_t{256} << 20;
    return options;
  }

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
