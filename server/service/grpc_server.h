// The listening server: services, health, reflection, addresses.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "grpcpp/server.h"
#include "server/listen/acceptor.h"
#include "server/listen/tls.h"
#include "server/service/gdn_service.h"
#include "server/service/hosted.h"
#include "server/service/sequence_service.h"
#include "server/service/shared_memory_service.h"
#include "server/service/transport.h"

namespace gdn {

struct GrpcServerOptions {
  std::vector<std::string> addresses;  // host:port, port 0 for a free one, or unix:PATH
  TransportLimits limits = {};
  bool reflection = false;
  bool shared_memory = false;  // serve SharedMemoryService
  TlsFiles tls = {};           // of TCP addresses
  absl::Duration reload_interval = absl::Seconds(10);
  mode_t unix_mode = 0600;
  int max_connections = 1024;  // of an address
};

class GrpcServer {
 public:
  // Listens, NOT_SERVING. UNAVAILABLE names the address that cannot be had, INVALID_ARGUMENT the
  // file of TLS that is wrong.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> Start(const Readiness& readiness,
                                                           const GrpcServerOptions& options);
  // Ends calls that still run after `grace`.
  void Shutdown(absl::Duration grace);

  void SetServing(bool serving);
  // The addresses listened on, with the ports that were given.
  const std::vector<std::string>& addresses() const { return addresses_; }

 private:
  explicit GrpcServer(const Readiness& readiness)
      : serving_(readiness.metrics->serving),
        gdn_service_(readiness),
        sequence_service_(readiness),
        shared_memory_service_(readiness) {}

  // Adds the addresses to the builder; their connections are taken once the server has started.
  absl::Status Listen(const GrpcServerOptions& options, grpc::ServerBuilder* builder);

  std::atomic<bool>& serving_;  // for the metrics
  GdnService gdn_service_;
  SequenceService sequence_service_;
  SharedMemoryService shared_memory_service_;
  std::vector<std::string> addresses_;
  std::vector<Door> doors_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<Acceptor> acceptor_;
};

}  // namespace gdn
