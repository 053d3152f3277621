#include "client/cpp/metrics_page.h"

#include <algorithm>
#include <cstdlib>
#include <limits>

#include "client/cpp/http_get.h"

namespace gdn::client {
namespace {

constexpr std::chrono::seconds kPatience{10};

// name="value",… without escapes, which our label values do not need.
Labels ParseLabels(std::string_view text) {
  Labels labels;
  while (!text.empty()) {
    const size_t equals = text.find("=\"");
    const size_t end = equals == text.npos ? text.npos : text.find('"', equals + 2);
    if (end == text.npos) break;
    labels.emplace(text.substr(0, equals), text.substr(equals + 2, end - equals - 2));
    text.remove_prefix(std::min(text.size(), end + 2));
  }
  return labels;
}

bool Has(const Labels& all, const Labels& some) {
  return std::includes(all.begin(), all.end(), some.begin(), some.end());
}

double BoundOf(const Labels& labels) {
  const auto le = labels.find("le");
  if (le == labels.end() || le->second == "+Inf") return std::numeric_limits<double>::infinity();
  return std::strtod(le->second.c_str(), nullptr);
}

}  // namespace

MetricsPage MetricsPage::Parse(std::string_view text) {
  MetricsPage page;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    const size_t space = line.rfind(' ');
    if (line.starts_with('#') || space == line.npos) continue;
    std::string_view name = line.substr(0, space);
    std::string_view labels;
    if (const size_t brace = name.find('{'); brace != name.npos) {
      labels = name.substr(brace + 1, name.size() - brace - 2);
      name = name.substr(0, brace);
    }
    const std::string value(line.substr(space + 1));
    page.series_[std::string(name)].push_back(
        {ParseLabels(labels), std::strtod(value.c_str(), nullptr)});
  }
  return page;
}

const std::vector<MetricsPage::Series>& MetricsPage::Of(const std::string& name) const {
  static const std::vector<Series> kNone;
  const auto found = series_.find(name);
  return found == series_.end() ? kNone : found->second;
}

double MetricsPage::Sum(const std::string& name, const Labels& labels) const {
  double sum = 0;
  for (const Series& series : Of(name)) {
    if (Has(series.labels, labels)) sum += series.value;
  }
  return sum;
}

std::string MetricsPage::Label(const std::string& name, const std::string& label) const {
  const std::vector<Series>& series = Of(name);
  if (series.empty() || !series.front().labels.contains(label)) return "";
  return series.front().labels.at(label);
}

bool FetchMetrics(const std::string& address, MetricsPage* page, std::string* why) {
  std::string text;
  if (!HttpGet(address, "/metrics", kPatience, &text, why)) return false;
  *page = MetricsPage::Parse(text);
  return true;
}

double QuantileBetween(const MetricsPage& before, const MetricsPage& after, double quantile,
                       const std::string& histogram, const Labels& labels) {
  std::map<double, double> cumulative;  // by upper bound
  const auto add = [&](const MetricsPage& page, double sign) {
    for (const MetricsPage::Series& series : page.Of(histogram + "_bucket")) {
      if (Has(series.labels, labels)) cumulative[BoundOf(series.labels)] += sign * series.value;
    }
  };
  add(after, 1);
  add(before, -1);
  if (cumulative.empty() || cumulative.rbegin()->second <= 0) return 0;
  const double rank = quantile * cumulative.rbegin()->second;
  double bound = 0, count = 0;
  for (const auto& [next_bound, next_count] : cumulative) {
    if (next_count >= rank && next_count > count) {
      if (next_bound == std::numeric_limits<double>::infinity()) return bound;
      return bound + (next_bound - bound) * (rank - count) / (next_count - count);
    }
    bound = next_bound;
    count = next_count;
  }
  return bound;
}

}  // namespace gdn::client
