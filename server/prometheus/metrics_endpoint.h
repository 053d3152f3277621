// Where Prometheus scrapes: GET /metrics over plain HTTP.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "server/prometheus/page_server.h"
#include "server/service/hosted.h"

namespace gdn {

class MetricsEndpoint {
 public:
  // Listens on `address` (host:port, port 0 for a free one). `readiness`, and what it hosts,
  // outlive the endpoint. UNAVAILABLE names an address that cannot be had, and says why.
  static absl::StatusOr<std::unique_ptr<MetricsEndpoint>> Start(const Readiness& readiness,
                                                                const std::string& address);

  // The address listened on, with the port that was given.
  const std::string& address() const { return address_; }

 private:
  MetricsEndpoint(const Readiness& readiness, Listener listener);

  const std::string address_;
  PageServer server_;
};

}  // namespace gdn
