#include "server/prometheus/metrics_endpoint.h"

#include <exception>
#include <vector>

#include "CivetServer.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/prometheus/metric_families.h"

namespace gdn {
namespace {

class Scrape : public prometheus::Collectable {
 public:
  explicit Scrape(const Readiness& readiness) : readiness_(readiness) {}
  std::vector<prometheus::MetricFamily> Collect() const override {
    return MetricFamilies(readiness_, ReadProcessStats());
  }

 private:
  const Readiness& readiness_;
};

// What the HTTP library said on this thread: why it could not start.
thread_local std::vector<std::string> said;

const CivetCallbacks& Callbacks() {
  static const CivetCallbacks callbacks = [] {
    CivetCallbacks made;
    made.log_message = [](const mg_connection*, const char* message) {
      said.emplace_back(message);
      return 0;
    };
    return made;
  }();
  return callbacks;
}

}  // namespace

MetricsEndpoint::MetricsEndpoint(const Readiness& readiness, const std::string& address)
    : collectable_(std::make_shared<Scrape>(readiness)),
      exposer_(address, /*num_threads=*/2, &Callbacks()),
      address_(absl::StrCat(address.substr(0, address.rfind(':')), ":",
                            exposer_.GetListeningPorts().front())) {
  exposer_.RegisterCollectable(collectable_);
}

// The library throws where it cannot listen.
absl::StatusOr<std::unique_ptr<MetricsEndpoint>> MetricsEndpoint::Start(
    const Readiness& readiness, const std::string& address) try {
  said.clear();
  return std::unique_ptr<MetricsEndpoint>(new MetricsEndpoint(readiness, address));
} catch (const std::exception& error) {
  said.emplace_back(error.what());
  return absl::UnavailableError(absl::StrCat("--metrics_listen: cannot listen on ", address, ": ",
                                             absl::StrJoin(said, "; ")));
}

}  // namespace gdn
