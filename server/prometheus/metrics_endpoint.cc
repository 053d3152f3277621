#include "server/prometheus/metrics_endpoint.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "prometheus/text_serializer.h"
#include "server/listen/address.h"
#include "server/prometheus/metric_families.h"

namespace gdn {
namespace {

constexpr std::chrono::seconds kPatience{5};

Page MetricsPage(const Readiness& readiness) {
  return {"/metrics", "text/plain; version=0.0.4; charset=utf-8", [&readiness] {
            const auto families = MetricFamilies(readiness, ReadProcessStats());
            return prometheus::TextSerializer().Serialize(families);
          }};
}

absl::StatusOr<Listener> ListenTcp(const std::string& address) {
  const absl::StatusOr<Address> parsed = ParseAddress(address);
  if (!parsed.ok()) return parsed.status();
  if (parsed->is_unix()) {
    return absl::InvalidArgumentError(absl::StrCat(address, ": Prometheus needs host:port"));
  }
  return Listen(*parsed, /*unix_mode=*/0);
}

}  // namespace

MetricsEndpoint::MetricsEndpoint(const Readiness& readiness, Listener listener)
    : address_(ToString(listener.address)),
      server_(std::move(listener), MetricsPage(readiness), kPatience) {}

absl::StatusOr<std::unique_ptr<MetricsEndpoint>> MetricsEndpoint::Start(
    const Readiness& readiness, const std::string& address) {
  absl::StatusOr<Listener> listener = ListenTcp(address);
  if (!listener.ok()) {
    return absl::UnavailableError(absl::StrCat("--metrics_listen: ", listener.status().message()));
  }
  return std::unique_ptr<MetricsEndpoint>(new MetricsEndpoint(readiness, *std::move(listener)));
}

}  // namespace gdn
