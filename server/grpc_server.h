// The listening server: services, health, reflection, addresses.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "grpcpp/server.h"
#include "server/gdn_service.h"
#include "server/hosted.h"
#include "server/sequence_service.h"
#include "server/shared_memory_service.h"

namespace gdn {

class GrpcServer {
 public:
  // Listens on `addresses` (host:port, port 0 for a free one, or unix:PATH), NOT_SERVING.
  // UNAVAILABLE names the address that cannot be had. SharedMemoryService is there where it is
  // allowed.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> Start(
      const Readiness& readiness, const std::vector<std::string>& addresses,
      int64_t max_message_bytes, bool reflection, bool shared_memory = false);
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

  std::atomic<bool>& serving_;  // for the metrics
  GdnService gdn_service_;
  SequenceService sequence_service_;
  SharedMemoryService shared_memory_service_;
  std::vector<std::string> addresses_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace gdn
