// What a server exports for Prometheus, read by something that is not Prometheus.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace gdn::client {

using Labels = std::map<std::string, std::string>;

// Series by name; of each its labels and value.
class MetricsPage {
 public:
  struct Series {
    Labels labels;
    double value = 0;
  };

  // What is not a sample is skipped.
  static MetricsPage Parse(std::string_view text);

  // All series of a name; none where there is no such name.
  const std::vector<Series>& Of(const std::string& name) const;
  // The sum over the series of a name that have these labels.
  double Sum(const std::string& name, const Labels& labels = {}) const;
  // Of the label of the first series of a name, or "".
  std::string Label(const std::string& name, const std::string& label) const;

 private:
  std::map<std::string, std::vector<Series>> series_;
};

// GET http://address/metrics. False, and why, where that fails.
bool FetchMetrics(const std::string& address, MetricsPage* page, std::string* why);

// The quantile of what a histogram counted between two pages, in its unit, as Prometheus computes
// it. 0 where it counted nothing.
double QuantileBetween(const MetricsPage& before, const MetricsPage& after, double quantile,
                       const std::string& histogram, const Labels& labels);

}  // namespace gdn::client
