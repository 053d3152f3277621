#include "client/cpp/bench.h"

#include <string>
#include <vector>

#include "client/cpp/ctl_text.h"
#include "nlohmann/json.hpp"

namespace gdn::client {
namespace {

using Json = nlohmann::ordered_json;

// Overwrites itself.
Progress Bar(const std::string& name, std::ostream& err) {
  constexpr int kWidth = 40;
  return [name, &err](double share, uint64_t calls) {
    const int filled = static_cast<int>(share * kWidth);
    err << '\r' << name << " [" << std::string(filled, '#') << std::string(kWidth - filled, '.')
        << "] " << Fixed(share * 100, 0) << " % " << calls << " calls";
    if (share >= 1) err << '\n';
    err.flush();
  };
}

LoadOptions LoadOf(const CtlOptions& options, bool prefill) {
  return {prefill, options.concurrency, options.rows, prefill ? options.tokens : 1,
          options.seconds};
}

Json ViewOf(const LoadOptions& load, const LoadResult& result) {
  const double rate = static_cast<double>(result.latencies.size()) / result.seconds;
  Json view = {
      {"callers", load.callers},          {"rows", load.rows},
      {"tokens_per_row", load.tokens},    {"seconds", result.seconds},
      {"calls", result.latencies.size()}, {"errors", result.errors},
      {"calls_per_second", rate},         {"tokens_per_second", rate * load.rows * load.tokens}};
  for (const int percent : {50, 90, 99, 100}) {
    const std::string name = percent == 100 ? "max" : "p" + std::to_string(percent);
    view[name + "_seconds"] = result.Percentile(percent);
  }
  return view;
}

std::vector<std::string> RowOf(const std::string& name, const Json& view) {
  std::vector<std::string> row = {name};
  for (const char* whole : {"callers", "rows", "tokens_per_row", "calls", "errors"}) {
    row.push_back(std::to_string(view[whole].get<int64_t>()));
  }
  for (const char* rate : {"calls_per_second", "tokens_per_second"}) {
    row.push_back(Fixed(view[rate].get<double>(), 1));
  }
  for (const char* time : {"p50_seconds", "p90_seconds", "p99_seconds", "max_seconds"}) {
    row.push_back(Fixed(view[time].get<double>() * 1e3, 3));
  }
  return row;
}

Error CheckFit(const v1::GetServerInfoResponse& info) {
  Error error;
  for (const int layout : info.input_layouts()) {
    if (layout == v1::INPUT_LAYOUT_HIDDEN && info.layers_size() > 0) return error;
  }
  error.code = grpc::FAILED_PRECONDITION;
  error.message = "bench sends hidden states, and the server takes none";
  return error;
}

}  // namespace

Error RunBench(const CtlOptions& options, const MakeClient& make_client, std::ostream& out,
               std::ostream& err) {
  v1::GetServerInfoResponse info;
  Error error = make_client()->Info(&info);
  if (error.ok()) error = CheckFit(info);
  if (!error.ok()) return error;
  const auto loads =
      options.words.empty() ? std::vector<std::string>{"decode", "prefill"} : options.words;
  Json views = Json::object();
  Table table = {{"LOAD", "CALLERS", "ROWS", "TOKENS", "CALLS", "ERRORS", "CALLS/S", "TOKENS/S",
                  "P50 MS", "P90 MS", "P99 MS", "MAX MS"}};
  for (const std::string& name : loads) {
    const LoadOptions load = LoadOf(options, name == "prefill");
    const Progress quiet = [](double, uint64_t) {};
    const LoadResult result =
        RunLoad(info, load, make_client, options.json ? quiet : Bar(name, err));
    views[name] = ViewOf(load, result);
    table.push_back(RowOf(name, views[name]));
    if (error.ok()) error = result.first_error;
  }
  options.json ? void(out << views.dump() << '\n') : Print(table, out);
  return error;
}

}  // namespace gdn::client
