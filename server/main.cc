// gdn-server: wiring only. From flags to a server that serves until SIGTERM or SIGINT.
#include <pthread.h>

#include <csignal>
#include <cstdio>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "grpcpp/grpcpp.h"
#include "server/allocator.h"
#include "server/backends.h"
#include "server/checkpoint/weights.h"
#include "server/config.h"
#include "server/engine/engine.h"
#include "server/engine/engine_thread.h"
#include "server/log.h"
#include "server/metrics/engine_meter.h"
#include "server/model_facts.h"
#include "server/prometheus/metrics_endpoint.h"
#include "server/service/grpc_server.h"
#include "server/service/transport.h"

namespace gdn {
namespace {

// Blocks the signals that end the server, in this thread and all that it starts.
sigset_t BlockSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  return signals;
}

uint64_t Random64() {
  std::random_device device;
  return (uint64_t{device()} << 32) | device();
}

// Whether a signal that ends the server waits to be taken.
bool EndIsDue(const sigset_t& signals) {
  sigset_t pending;
  sigpending(&pending);
  sigandset(&pending, &pending, &signals);
  return sigisemptyset(&pending) == 0;
}

absl::Status LoadLayers(Checkpoint* checkpoint, DType io, const sigset_t& signals,
                        Backend* backend) {
  const size_t count = checkpoint->info().layers.size();
  absl::Time last = absl::Now();
  for (size_t i = 0; i < count; ++i) {
    const absl::StatusOr<LayerWeights> weights = checkpoint->ReadLayer(static_cast<int>(i), io);
    if (!weights.ok()) return weights.status();
    absl::Status loaded = backend->LoadLayer(static_cast<int>(i), *weights);
    if (!loaded.ok()) return loaded;
    if (EndIsDue(signals)) return absl::CancelledError("ended while loading");
    if (absl::Now() - last < absl::Seconds(1)) continue;
    last = absl::Now();
    Log(LogLevel::kInfo, "loading", {{"layers_loaded", i + 1}, {"layers", count}});
  }
  return absl::OkStatus();
}

// Null without --metrics_listen.
absl::StatusOr<std::unique_ptr<MetricsEndpoint>> ServeMetrics(const config::ServerConfig& config,
                                                              const Readiness& readiness) {
  if (config.metrics_listen().empty()) return nullptr;
  auto endpoint = MetricsEndpoint::Start(readiness, config.metrics_listen());
  if (endpoint.ok()) Log(LogLevel::kInfo, "metrics", {{"address", (*endpoint)->address()}});
  return endpoint;
}

GrpcServerOptions ServerOptionsOf(const config::ServerConfig& config, const BackendShape& shape) {
  GrpcServerOptions options;
  options.addresses = Addresses(config);
  options.limits = {.message_bytes = MaxMessageBytes(config, shape),
                    .streams = config.max_streams(),
                    .metadata_bytes = config.max_metadata_bytes(),
                    .idle = DurationOf(config.max_connection_idle())};
  options.reflection = config.reflection();
  options.shared_memory = config.allow_shared_memory();
  options.tls = {config.tls_cert(), config.tls_key(), config.tls_client_ca()};
  options.reload_interval = DurationOf(config.reload_interval());
  options.unix_mode = UnixSocketMode(config);
  options.max_connections = config.max_connections();
  return options;
}

void LogTokens(const absl::Status& status) {
  if (status.ok()) return Log(LogLevel::kInfo, "tokens_reloaded");
  Log(LogLevel::kWarn, "tokens_kept", {{"why", status.message()}});
}

// Null where none are asked for.
absl::StatusOr<std::unique_ptr<TokenFile>> OpenTokens(const config::ServerConfig& config) {
  if (config.tokens().empty()) return nullptr;
  return TokenFile::Open(config.tokens(), DurationOf(config.reload_interval()), LogTokens);
}

absl::Status Serve(const config::ServerConfig& config, const sigset_t& signals) {
  auto checkpoint = Checkpoint::Open(config.model());
  if (!checkpoint.ok()) return checkpoint.status();
  const ModelInfo model = (*checkpoint)->info();
  const absl::StatusOr<BackendShape> shape = ShapeOf(config, model);
  if (!shape.ok()) return shape.status();

  const auto tokens = OpenTokens(config);
  if (!tokens.ok()) return tokens.status();
  Readiness readiness;
  readiness.instance_id = absl::StrCat(absl::Hex(Random64(), absl::kZeroPad16));
  readiness.tokens = tokens->get();
  auto server = GrpcServer::Start(readiness, ServerOptionsOf(config, *shape));
  if (!server.ok()) return server.status();
  auto metrics = ServeMetrics(config, readiness);
  if (!metrics.ok()) return metrics.status();

  auto backend = MakeBackend(config.backend(), *shape, config.threads());
  if (!backend.ok()) return backend.status();
  auto input_pool = MakeHostPool(**backend, *shape);
  if (!input_pool.ok()) return input_pool.status();
  auto output_pool = MakeHostPool(**backend, *shape);
  if (!output_pool.ok()) return output_pool.status();
  absl::Status loaded = LoadLayers(checkpoint->get(), shape->io, signals, backend->get());
  if (!loaded.ok()) return loaded;
  checkpoint->reset();

  const auto opener = MakeDeviceMemoryOpener((*backend)->name());
  Regions regions(config.shared_memory_prefix(), opener.get());
  EngineMeter meter(readiness.metrics.get());
  EngineOptions options =
      EngineOptionsOf(config, model, *shape, DefaultPrefillChunk(**backend), Random64() | 1);
  options.on_device_lost = [&server] {
    Log(LogLevel::kError, "device_lost");
    (*server)->SetServing(false);
  };
  options.observer = &meter;
  Engine engine(std::move(options), backend->get());
  Hosted hosted = FactsOf(config, model, *shape, readiness.instance_id);
  hosted.engine = &engine;
  hosted.regions = &regions;
  hosted.input_pool = *std::move(input_pool);
  hosted.output_pool = *std::move(output_pool);
  hosted.backend = (*backend)->name();
  auto thread = std::make_unique<EngineThread>(&engine);
  (*server)->SetServing(true);  // first: a step may lose the device as soon as there are any
  readiness.hosted = &hosted;
  std::printf("ready: listening on %s, layers %zu, backend %s, instance %s\n",
              absl::StrJoin((*server)->addresses(), ",").c_str(), model.layers.size(),
              hosted.backend.c_str(), readiness.instance_id.c_str());
  std::fflush(stdout);

  int signal = 0;
  sigwait(&signals, &signal);
  Log(LogLevel::kInfo, "draining", {{"signal", signal}});
  (*server)->SetServing(false);
  thread->Drain(DurationOf(config.drain_timeout()));
  metrics->reset();
  thread.reset();
  (*server)->Shutdown(absl::Seconds(1));
  Log(LogLevel::kInfo, "stopped");
  return absl::OkStatus();
}

int Main(const std::vector<std::string>& args) {
  TuneAllocator();
  TuneProcess();
  const sigset_t signals = BlockSignals();
  if (args.size() == 1 && args[0] == "--help") {
    std::printf("%s", FlagHelp().c_str());
    return 0;
  }
  const absl::StatusOr<config::ServerConfig> config = ParseFlags(args);
  const absl::Status status = config.ok() ? Validate(*config) : config.status();
  if (!status.ok()) {
    std::fprintf(stderr, "gdn-server: %s\n", std::string(status.message()).c_str());
    return 2;
  }
  SetLogLevel(config->log_level());
  Log(LogLevel::kInfo, "configuration",
      {{"version", GDN_VERSION}, {"grpc", grpc::Version()}, {"flags", AsFlags(*config)}});
  const absl::Status served = Serve(*config, signals);
  if (served.ok()) return 0;
  if (absl::IsCancelled(served)) {
    Log(LogLevel::kInfo, "stopped", {{"why", served.message()}});
    return 0;
  }
  std::fprintf(stderr, "gdn-server: %s\n", std::string(served.message()).c_str());
  return 1;
}

}  // namespace
}  // namespace gdn

int main(int argc, char** argv) { return gdn::Main({argv + 1, argv + argc}); }
