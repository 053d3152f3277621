#include "client/cpp/ctl_facts.h"

#include <google/protobuf/util/time_util.h>

#include <algorithm>
#include <vector>

#include "client/cpp/ctl_text.h"

namespace gdn::client {
namespace {

using google::protobuf::Timestamp;
using google::protobuf::util::TimeUtil;

template <typename List, typename Format>
std::string Join(const List& list, Format format) {
  std::string joined;
  for (const auto& element : list) joined += (joined.empty() ? "" : " ") + format(element);
  return joined;
}

std::string DataTypeName(int type) {
  return v1::DataType_Name(static_cast<v1::DataType>(type)).substr(sizeof("DATA_TYPE_") - 1);
}

std::string LayoutName(int layout) {
  return v1::InputLayout_Name(static_cast<v1::InputLayout>(layout))
      .substr(sizeof("INPUT_LAYOUT_") - 1);
}

std::string Describe(const v1::Geometry& g) {
  return "hidden " + std::to_string(g.hidden_size()) + ", heads " + std::to_string(g.key_heads()) +
         "/" + std::to_string(g.value_heads()) + ", dims " + std::to_string(g.key_dim()) + "/" +
         std::to_string(g.value_dim()) + ", conv " + std::to_string(g.conv_width());
}

// "3" where every layer is there, "3-7" while a pass is under way.
std::string Describe(const google::protobuf::RepeatedField<uint64_t>& positions) {
  if (positions.empty()) return "-";
  const auto [low, high] = std::minmax_element(positions.begin(), positions.end());
  return *low == *high ? std::to_string(*low) : std::to_string(*low) + "-" + std::to_string(*high);
}

double SecondsOf(const google::protobuf::Duration& duration) {
  return static_cast<double>(TimeUtil::DurationToMilliseconds(duration)) / 1000;
}

void Sort(const std::string& key, std::vector<v1::Sequence>* sequences) {
  if (key == "slot") return;  // as they come
  const auto time = [&key](const v1::Sequence& sequence) -> const Timestamp& {
    return key == "age" ? sequence.create_time() : sequence.expire_time();
  };
  std::stable_sort(sequences->begin(), sequences->end(),
                   [&](const auto& a, const auto& b) { return time(a) < time(b); });
}

Table TableOf(const std::vector<v1::Sequence>& sequences) {
  const Timestamp now = TimeUtil::GetCurrentTime();
  Table table = {{"SLOT", "POSITION", "STATE", "AGE", "LEASE", "EPOCH", "REQUEST_ID"}};
  for (const v1::Sequence& s : sequences) {
    table.push_back({std::to_string(s.slot()), Describe(s.positions()),
                     s.state() == v1::SEQUENCE_STATE_POISONED ? "poisoned" : "live",
                     ShortDuration(SecondsOf(now - s.create_time())),
                     ShortDuration(SecondsOf(s.expire_time() - now)), std::to_string(s.epoch()),
                     s.request_id()});
  }
  return table;
}

}  // namespace

Error RunInfo(Client& client, const CtlOptions& options, std::ostream& out) {
  v1::GetServerInfoResponse info;
  Error error = client.Info(&info);
  if (!error.ok()) return error;
  if (options.json) return out << ToJson(info) << '\n', error;
  const auto number = [](auto n) { return std::to_string(n); };
  Print({{"version", info.version()},
         {"instance_id", info.instance_id()},
         {"model_fingerprint", info.model_fingerprint()},
         {"geometry", Describe(info.geometry())},
         {"layers", Join(info.layers(), number)},
         {"data_type", DataTypeName(info.data_type())},
         {"ssm_data_type", DataTypeName(info.ssm_data_type())},
         {"input_layouts", Join(info.input_layouts(), LayoutName)},
         {"max_rows", number(info.max_rows())},
         {"max_tokens", number(info.max_tokens())},
         {"max_decode_tokens", number(info.max_decode_tokens())},
         {"max_speculative_tokens", number(info.max_speculative_tokens())},
         {"max_message_bytes", number(info.max_message_bytes())},
         {"slots", number(info.slots_used()) + " of " + number(info.slots()) + " used"},
         {"step_ttl", TimeUtil::ToString(info.step_ttl())},
         {"max_ttl", TimeUtil::ToString(info.max_ttl())}},
        out);
  return error;
}

Error RunHealth(Client& client, const CtlOptions& options, std::ostream& out) {
  Health health = Health::kUnknown;
  Error error = client.CheckHealth("", &health);
  if (!error.ok()) return error;
  if (health != Health::kServing) {
    error.code = grpc::UNAVAILABLE;
    error.message = health == Health::kNotServing ? "NOT_SERVING" : "UNKNOWN";
    return error;
  }
  out << (options.json ? R"({"status":"SERVING"})" : "SERVING") << '\n';
  return error;
}

Error RunLs(Client& client, const CtlOptions& options, std::ostream& out) {
  std::vector<v1::Sequence> sequences;
  Error error = client.List(&sequences);
  if (!error.ok()) return error;
  Sort(options.sort, &sequences);
  if (!options.json) return Print(TableOf(sequences), out), error;
  v1::ListSequencesResponse all;
  all.mutable_sequences()->Add(sequences.begin(), sequences.end());
  out << ToJson(all) << '\n';
  return error;
}

Error RunRelease(Client& client, const CtlOptions& options, std::ostream& out) {
  v1::ReleaseSequencesRequest request;
  request.mutable_request_ids()->Add(options.words.begin(), options.words.end());
  Error error = client.Release(request);
  if (error.ok() && options.json) out << ToJson(request) << '\n';
  return error;
}

}  // namespace gdn::client
