// What the server counts, as Prometheus takes it: names, HELP, labels, base units. Labels have few
// values, whatever callers send: never a request id, a layer or a peer.
#pragma once

#include <vector>

#include "prometheus/metric_family.h"
#include "server/prometheus/process_stats.h"
#include "server/service/hosted.h"

namespace gdn {

std::vector<prometheus::MetricFamily> MetricFamilies(const Readiness& readiness,
                                                     const ProcessStats& process);

}  // namespace gdn
