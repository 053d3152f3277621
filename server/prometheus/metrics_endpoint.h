// Where Prometheus scrapes: GET /metrics over plain HTTP.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "prometheus/collectable.h"
#include "prometheus/exposer.h"
#include "server/service/hosted.h"

namespace gdn {

class MetricsEndpoint {
 public:
  // Listens on `address` (host:port, port 0 for a free one). `readiness`, and what it hosts,
  // outlive the endpoint. UNAVAILABLE names an address that cannot be had.
  static absl::StatusOr<std::unique_ptr<MetricsEndpoint>> Start(const Readiness& readiness,
                                                                const std::string& address);

  // The address listened on, with the port that was given.
  const std::string& address() const { return address_; }

 private:
  MetricsEndpoint(const Readiness& readiness, const std::string& address);

  const std::shared_ptr<prometheus::Collectable> collectable_;
  prometheus::Exposer exposer_;
  std::string address_;
};

}  // namespace gdn
