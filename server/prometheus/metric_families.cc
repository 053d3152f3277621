#include "server/prometheus/metric_families.h"

#include <string>
#include <utility>

#include "server/metrics/metrics.h"

namespace gdn {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;
using Labels = std::vector<ClientMetric::Label>;

constexpr double kNanosecondsOfSecond = 1e9;
constexpr const char* kKindNames[] = {"prefill", "decode"};
constexpr const char* kCodeNames[] = {
    "OK",        "CANCELLED",      "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
    "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
    "ABORTED",   "OUT_OF_RANGE",   "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
    "DATA_LOSS", "UNAUTHENTICATED"};
static_assert(std::size(kCodeNames) == kStatusCodes);

ClientMetric CounterOf(double value, Labels labels = {}) {
  ClientMetric metric;
  metric.label = std::move(labels);
  metric.counter.value = value;
  return metric;
}

ClientMetric CounterOf(const Counter& counter, Labels labels = {}) {
  return CounterOf(static_cast<double>(counter.value()), std::move(labels));
}

ClientMetric GaugeOf(double value, Labels labels = {}) {
  ClientMetric metric;
  metric.label = std::move(labels);
  metric.gauge.value = value;
  return metric;
}

// `per_unit`: of a value, to one of the metric's unit.
ClientMetric HistogramOf(const Histogram& histogram, double per_unit, Labels labels) {
  ClientMetric metric;
  metric.label = std::move(labels);
  uint64_t count = 0;
  for (size_t i = 0; i < histogram.bounds().size(); ++i) {
    count += histogram.count(i);
    metric.histogram.bucket.push_back(
        {count, static_cast<double>(histogram.bounds()[i]) / per_unit});
  }
  count += histogram.count(histogram.bounds().size());
  metric.histogram.sample_count = count;
  metric.histogram.sample_sum = static_cast<double>(histogram.sum()) / per_unit;
  return metric;
}

class Families {
 public:
  void Add(std::string name, std::string help, MetricType type, std::vector<ClientMetric> metrics) {
    all_.push_back({std::move(name), std::move(help), type, std::move(metrics)});
  }
  void AddGauge(std::string name, std::string help, double value, Labels labels = {}) {
    Add(std::move(name), std::move(help), MetricType::Gauge, {GaugeOf(value, std::move(labels))});
  }
  void AddCounter(std::string name, std::string help, ClientMetric metric) {
    Add(std::move(name), std::move(help), MetricType::Counter, {std::move(metric)});
  }
  // A histogram of each kind of step.
  void AddByKind(std::string name, std::string help, const Metrics& metrics,
                 Histogram StepNumbers::*histogram, double per_unit) {
    std::vector<ClientMetric> series;
    for (size_t kind = 0; kind < metrics.steps.size(); ++kind) {
      series.push_back(
          HistogramOf(metrics.steps[kind].*histogram, per_unit, {{"kind", kKindNames[kind]}}));
    }
    Add(std::move(name), std::move(help), MetricType::Histogram, std::move(series));
  }
  // A counter of each method.
  void AddByMethod(std::string name, std::string help, const Metrics& metrics,
                   Counter CallNumbers::*counter) {
    std::vector<ClientMetric> series;
    for (size_t method = 0; method < kMethods; ++method) {
      series.push_back(
          CounterOf(metrics.calls[method].*counter, {{"method", kMethodNames[method]}}));
    }
    Add(std::move(name), std::move(help), MetricType::Counter, std::move(series));
  }

  std::vector<MetricFamily> Take() { return std::move(all_); }

 private:
  std::vector<MetricFamily> all_;
};

bool IsUnary(Method method) { return method != Method::kStream && method != Method::kServeRing; }

std::string DataTypeName(int type) {
  return v1::DataType_Name(static_cast<v1::DataType>(type)).substr(sizeof("DATA_TYPE_") - 1);
}

void AddHosted(const Hosted& hosted, Families* families) {
  const v1::GetServerInfoResponse& info = hosted.info;
  const v1::Geometry& geometry = info.geometry();
  families->AddGauge("gdn_build_info", "Release of the server. Always 1.", 1,
                     {{"version", info.version()}, {"backend", hosted.backend}});
  families->AddGauge("gdn_model_info", "The layers that are hosted. Always 1.", 1,
                     {{"fingerprint", info.model_fingerprint()},
                      {"layers", std::to_string(info.layers_size())},
                      {"hidden_size", std::to_string(geometry.hidden_size())},
                      {"key_heads", std::to_string(geometry.key_heads())},
                      {"value_heads", std::to_string(geometry.value_heads())},
                      {"data_type", DataTypeName(info.data_type())},
                      {"ssm_data_type", DataTypeName(info.ssm_data_type())}});
  families->AddGauge("gdn_slots", "Sequences that fit (--slots).", info.slots());
  families->AddGauge("gdn_slots_used", "Sequences that live.", hosted.engine->slots_used());
  families->AddGauge("gdn_queue_steps",
                     "Steps taken and not answered: those that wait and those that run.",
                     static_cast<double>(hosted.engine->waiting()));
}

void AddCalls(const Metrics& metrics, Families* families) {
  std::vector<ClientMetric> ended;
  std::vector<ClientMetric> durations;
  for (size_t method = 0; method < kMethods; ++method) {
    const CallNumbers& call = metrics.calls[method];
    const ClientMetric::Label name = {"method", kMethodNames[method]};
    for (size_t code = 0; code < kStatusCodes; ++code) {
      if (code != 0 && call.ended[code].value() == 0) continue;
      ended.push_back(CounterOf(call.ended[code], {name, {"code", kCodeNames[code]}}));
    }
    if (IsUnary(static_cast<Method>(method))) {
      durations.push_back(HistogramOf(call.duration, kNanosecondsOfSecond, {name}));
    }
  }
  families->Add("gdn_requests_total", "Calls that ended, by the code that the server gave them.",
                MetricType::Counter, std::move(ended));
  families->Add("gdn_request_duration_seconds",
                "Time of a unary call in the server, from its whole message to its answer.",
                MetricType::Histogram, std::move(durations));
  families->AddByMethod("gdn_received_bytes_total",
                        "Bytes of the messages received; tensors in shared memory are none.",
                        metrics, &CallNumbers::received_bytes);
  families->AddByMethod("gdn_sent_bytes_total", "Bytes of the messages answered with.", metrics,
                        &CallNumbers::sent_bytes);
  families->AddGauge("gdn_open_streams", "Calls of Stream under way.",
                     static_cast<double>(metrics.open_streams.value()));
}

void AddSteps(const Metrics& metrics, Families* families) {
  families->AddByKind(
      "gdn_step_duration_seconds",
      "Time of a step from when it entered the queue until it is answered, whatever "
      "brought it.",
      metrics, &StepNumbers::duration, kNanosecondsOfSecond);
  families->AddByKind("gdn_step_queue_seconds",
                      "The part of a step's time before it was taken for a batch.", metrics,
                      &StepNumbers::queued, kNanosecondsOfSecond);
  families->AddByKind(
      "gdn_batch_device_seconds",
      "Time between the backend's Begin and End of a batch, as the engine sees it: "
      "with two batches in flight the wait behind the first is part of the second's.",
      metrics, &StepNumbers::device, kNanosecondsOfSecond);
  families->AddByKind("gdn_batch_rows", "Rows of a batch, padding included.", metrics,
                      &StepNumbers::batch_rows, 1);
  families->AddByKind("gdn_batch_tokens", "Tokens of a batch.", metrics, &StepNumbers::batch_tokens,
                      1);
  families->AddCounter("gdn_replayed_rows_total",
                       "Rows answered from the store since their step had committed before.",
                       CounterOf(metrics.replayed_rows));
  families->AddCounter("gdn_leases_expired_total",
                       "Sequences that ended by the end of their lease.",
                       CounterOf(metrics.leases_expired));
}

void AddErrors(const Metrics& metrics, Families* families) {
  constexpr size_t kPrefix = sizeof("ERROR_REASON_") - 1;
  std::vector<ClientMetric> series;
  for (int reason = v1::ErrorReason_MIN; reason <= v1::ErrorReason_MAX; ++reason) {
    if (reason == v1::ERROR_REASON_UNSPECIFIED || !v1::ErrorReason_IsValid(reason)) continue;
    series.push_back(CounterOf(
        metrics.errors[static_cast<size_t>(reason)],
        {{"reason", v1::ErrorReason_Name(static_cast<v1::ErrorReason>(reason)).substr(kPrefix)}}));
  }
  families->Add("gdn_errors_total",
                "Calls, and steps of streams and rings, that were refused or failed, by reason.",
                MetricType::Counter, std::move(series));
}

void AddProcess(const ProcessStats& process, Families* families) {
  families->AddGauge("process_resident_memory_bytes", "Memory of the process that is resident.",
                     process.resident_bytes);
  families->AddCounter("process_cpu_seconds_total", "Processor time of all threads.",
                       CounterOf(process.cpu_seconds));
  families->AddGauge("process_open_fds", "Open file descriptors.", process.open_files);
}

}  // namespace

std::vector<MetricFamily> MetricFamilies(const Readiness& readiness, const ProcessStats& process) {
  Families families;
  const Metrics& metrics = *readiness.metrics;
  families.AddGauge("gdn_serving", "1 while health is SERVING.", metrics.serving ? 1 : 0);
  if (const Hosted* hosted = readiness.hosted; hosted != nullptr) AddHosted(*hosted, &families);
  AddCalls(metrics, &families);
  AddSteps(metrics, &families);
  AddErrors(metrics, &families);
  AddProcess(process, &families);
  return families.Take();
}

}  // namespace gdn
