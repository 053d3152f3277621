#include "client/cpp/ctl.h"

#include <google/protobuf/util/time_util.h>

#include <algorithm>
#include <fstream>
#include <iomanip>
#include <optional>
#include <string_view>

#include "client/cpp/client.h"

namespace gdn::client {
namespace {

using google::protobuf::util::TimeUtil;

constexpr std::string_view kUsage =
    R"(usage: gdn-ctl [FLAG...] COMMAND

  info           what the server hosts and allows
  ls             its sequences
  health         SERVING or not
  release ID...  ends sequences

  --target=ADDR           host:port or unix:PATH (127.0.0.1:50051)
  --token_file=FILE       file of the bearer token for a server that asks for one
  --tls                   speak TLS; so does every flag below
  --tls_ca=FILE           PEM: authorities of the server's certificate (the system's)
  --tls_cert=FILE         PEM: the certificate to show to the server
  --tls_key=FILE          PEM: its key
  --tls_server_name=NAME  the name in the server's certificate (that of ADDR)
)";

using Table = std::vector<std::vector<std::string>>;

// Columns as wide as their widest cell, two spaces between them.
void Print(const Table& table, std::ostream& out) {
  std::vector<size_t> widths;
  for (const auto& row : table) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  for (const auto& row : table) {
    for (size_t i = 0; i + 1 < row.size(); ++i) {
      out << std::left << std::setw(static_cast<int>(widths[i]) + 2) << row[i];
    }
    out << row.back() << '\n';
  }
}

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

Error RunInfo(Client& client, std::ostream& out) {
  v1::GetServerInfoResponse info;
  Error error = client.Info(&info);
  if (!error.ok()) return error;
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

Error RunLs(Client& client, std::ostream& out) {
  std::vector<v1::Sequence> sequences;
  Error error = client.List(&sequences);
  if (!error.ok()) return error;
  Table table = {{"SLOT", "POSITION", "STATE", "EXPIRES", "EPOCH", "REQUEST_ID"}};
  for (const v1::Sequence& s : sequences) {
    table.push_back({std::to_string(s.slot()), Describe(s.positions()),
                     s.state() == v1::SEQUENCE_STATE_POISONED ? "poisoned" : "live",
                     TimeUtil::ToString(s.expire_time()), std::to_string(s.epoch()),
                     s.request_id()});
  }
  Print(table, out);
  return error;
}

Error RunHealth(Client& client, std::ostream& out) {
  Health health = Health::kUnknown;
  Error error = client.CheckHealth("", &health);
  if (!error.ok()) return error;
  if (health != Health::kServing) {
    error.code = grpc::UNAVAILABLE;
    error.message = health == Health::kNotServing ? "NOT_SERVING" : "UNKNOWN";
    return error;
  }
  out << "SERVING\n";
  return error;
}

Error RunRelease(Client& client, const std::vector<std::string>& ids) {
  v1::ReleaseSequencesRequest request;
  request.mutable_request_ids()->Add(ids.begin(), ids.end());
  return client.Release(request);
}

// How to reach the server.
struct Reach {
  std::string target = "127.0.0.1:50051";
  std::string token_file;
  std::optional<Tls> tls;
};

// Where the value of a flag goes; null where there is no such flag.
std::string* FieldOf(std::string_view flag, Reach* reach) {
  if (flag == "--target") return &reach->target;
  if (flag == "--token_file") return &reach->token_file;
  if (!flag.starts_with("--tls")) return nullptr;
  if (!reach->tls) reach->tls.emplace();
  if (flag == "--tls_ca") return &reach->tls->ca;
  if (flag == "--tls_cert") return &reach->tls->cert;
  if (flag == "--tls_key") return &reach->tls->key;
  return flag == "--tls_server_name" ? &reach->tls->server_name : nullptr;
}

// Takes the flags from the arguments; false where one is unknown or has no value.
bool TakeFlags(std::vector<std::string>* arguments, Reach* reach) {
  while (!arguments->empty() && arguments->front().starts_with("-")) {
    const std::string argument = arguments->front();
    arguments->erase(arguments->begin());
    if (argument == "--tls") {
      if (!reach->tls) reach->tls.emplace();
      continue;
    }
    const size_t equals = argument.find('=');
    std::string* field = FieldOf(argument.substr(0, equals), reach);
    if (field == nullptr || equals == std::string::npos) return false;
    *field = argument.substr(equals + 1);
    if (field->empty()) return false;
  }
  return !arguments->empty();
}

// The first word of the file; empty where it cannot be read.
std::string ReadToken(const std::string& path) {
  std::string token;
  std::ifstream(path) >> token;
  return token;
}

}  // namespace

int RunCtl(const std::vector<std::string>& arguments, std::ostream& out, std::ostream& err) {
  if (arguments == std::vector<std::string>{"--help"}) return out << kUsage, 0;
  std::vector<std::string> words = arguments;
  Reach reach;
  if (!TakeFlags(&words, &reach)) return err << kUsage, 2;
  const std::string command = words.front();
  words.erase(words.begin());
  if ((command == "release") == words.empty()) return err << kUsage, 2;

  const std::string token = ReadToken(reach.token_file);
  if (token.empty() && !reach.token_file.empty()) {
    return err << "gdn-ctl: no token in " << reach.token_file << '\n', 2;
  }
  Client client(Connect(reach.target, reach.tls, token));
  Error error;
  if (command == "info") {
    error = RunInfo(client, out);
  } else if (command == "ls") {
    error = RunLs(client, out);
  } else if (command == "health") {
    error = RunHealth(client, out);
  } else if (command == "release") {
    error = RunRelease(client, words);
  } else {
    return err << kUsage, 2;
  }
  if (error.ok()) return 0;
  err << "gdn-ctl: " << ToString(error) << '\n';
  return 1;
}

}  // namespace gdn::client
