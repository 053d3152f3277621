#include "client/cpp/top.h"

#include <array>
#include <chrono>
#include <thread>

#include "client/cpp/ctl_text.h"
#include "client/cpp/metrics_page.h"
#include "nlohmann/json.hpp"

namespace gdn::client {
namespace {

using Clock = std::chrono::steady_clock;
using Json = nlohmann::ordered_json;

constexpr std::array<const char*, 2> kKinds = {"decode", "prefill"};

// Two pages and the seconds between them.
struct Span {
  MetricsPage before;
  MetricsPage after;
  double seconds = 1;

  double Rate(const std::string& name, const Labels& labels = {}) const {
    return (after.Sum(name, labels) - before.Sum(name, labels)) / seconds;
  }
  double Quantile(double quantile, const std::string& histogram, const char* kind) const {
    return QuantileBetween(before, after, quantile, histogram, {{"kind", kind}});
  }
};

Json ViewOfKind(const Span& span, const char* kind) {
  const Labels of_kind = {{"kind", kind}};
  const double batches = span.Rate("gdn_batch_rows_count", of_kind);
  const double rows = span.Rate("gdn_batch_rows_sum", of_kind);
  return {{"steps_per_second", span.Rate("gdn_step_duration_seconds_count", of_kind)},
          {"tokens_per_second", span.Rate("gdn_batch_tokens_sum", of_kind)},
          {"rows_per_batch", batches > 0 ? rows / batches : 0.0},
          {"p50_seconds", span.Quantile(0.5, "gdn_step_duration_seconds", kind)},
          {"p99_seconds", span.Quantile(0.99, "gdn_step_duration_seconds", kind)},
          {"queue_p99_seconds", span.Quantile(0.99, "gdn_step_queue_seconds", kind)},
          {"device_p50_seconds", span.Quantile(0.5, "gdn_batch_device_seconds", kind)}};
}

Json ErrorsOf(const Span& span) {
  Json errors = Json::object();
  for (const MetricsPage::Series& series : span.after.Of("gdn_errors_total")) {
    const double rate = span.Rate("gdn_errors_total", series.labels);
    if (rate > 0) errors[series.labels.at("reason")] = rate;
  }
  return errors;
}

Json ViewOf(const Span& span) {
  const MetricsPage& now = span.after;
  Json view = {{"version", now.Label("gdn_build_info", "version")},
               {"backend", now.Label("gdn_build_info", "backend")},
               {"serving", now.Sum("gdn_serving") > 0},
               {"slots", now.Sum("gdn_slots")},
               {"slots_used", now.Sum("gdn_slots_used")},
               {"queue_steps", now.Sum("gdn_queue_steps")},
               {"open_streams", now.Sum("gdn_open_streams")},
               {"resident_bytes", now.Sum("process_resident_memory_bytes")},
               {"calls_per_second", span.Rate("gdn_requests_total")},
               {"received_bytes_per_second", span.Rate("gdn_received_bytes_total")},
               {"sent_bytes_per_second", span.Rate("gdn_sent_bytes_total")}};
  for (const char* kind : kKinds) view[kind] = ViewOfKind(span, kind);
  view["errors_per_second"] = ErrorsOf(span);
  return view;
}

std::string Number(const Json& value, int digits = 0) { return Fixed(value.get<double>(), digits); }

std::string Milliseconds(const Json& seconds) { return Fixed(seconds.get<double>() * 1e3, 2); }

std::string Mebibytes(const Json& bytes) { return Fixed(bytes.get<double>() / (1 << 20), 1); }

void Show(const Json& view, const std::string& address, std::ostream& out) {
  out << "gdn-server " << view["version"].get<std::string>() << " on "
      << view["backend"].get<std::string>() << ", " << address << ", "
      << (view["serving"].get<bool>() ? "SERVING" : "NOT_SERVING") << "\n"
      << "slots " << Number(view["slots_used"]) << " of " << Number(view["slots"]) << ", queue "
      << Number(view["queue_steps"]) << ", streams " << Number(view["open_streams"]) << ", memory "
      << Mebibytes(view["resident_bytes"]) << " MiB\n"
      << "calls/s " << Number(view["calls_per_second"], 1) << ", MiB/s in "
      << Mebibytes(view["received_bytes_per_second"]) << ", out "
      << Mebibytes(view["sent_bytes_per_second"]) << "\n\n";
  Table table = {{"", "STEPS/S", "TOKENS/S", "ROWS/BATCH", "P50 MS", "P99 MS", "QUEUE P99 MS",
                  "DEVICE P50 MS"}};
  for (const char* kind : kKinds) {
    const Json& of = view[kind];
    table.push_back({kind, Number(of["steps_per_second"], 1), Number(of["tokens_per_second"], 1),
                     Number(of["rows_per_batch"], 1), Milliseconds(of["p50_seconds"]),
                     Milliseconds(of["p99_seconds"]), Milliseconds(of["queue_p99_seconds"]),
                     Milliseconds(of["device_p50_seconds"])});
  }
  Print(table, out);
  for (const auto& [reason, rate] : view["errors_per_second"].items()) {
    out << "errors/s " << Number(rate, 1) << " " << reason << "\n";
  }
}

}  // namespace

bool RunTop(const CtlOptions& options, std::ostream& out, std::string* why) {
  constexpr const char* kClear = "\x1b[H\x1b[2J";
  Span span;
  if (!FetchMetrics(options.metrics, &span.before, why)) return false;
  Clock::time_point last = Clock::now();
  for (int i = 0; options.iterations == 0 || i < options.iterations; ++i) {
    std::this_thread::sleep_for(std::chrono::duration<double>(options.interval));
    if (!FetchMetrics(options.metrics, &span.after, why)) return false;
    const Clock::time_point now = Clock::now();
    span.seconds = std::chrono::duration<double>(now - last).count();
    const Json view = ViewOf(span);
    if (options.json) {
      out << view.dump() << std::endl;
    } else {
      if (options.iterations == 0) out << kClear;
      Show(view, options.metrics, out);
      out.flush();
    }
    span.before = std::move(span.after);
    last = now;
  }
  return true;
}

}  // namespace gdn::client
