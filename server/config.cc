#include "server/config.h"

#include <filesystem>
#include <fstream>
#include <sstream>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "google/protobuf/io/tokenizer.h"
#include "google/protobuf/text_format.h"
#include "server/listen/address.h"

namespace gdn {
namespace {

using config::ServerConfig;
using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;

// Less than the request_ids that the codec keeps of a message.
constexpr int64_t kMostRows = 32768;
// Tokens that the kernels of a prefill take at a time.
constexpr int64_t kKernelChunk = 64;

// Keeps the first complaint of the text format parser.
class FirstError : public google::protobuf::io::ErrorCollector {
 public:
#if GOOGLE_PROTOBUF_VERSION < 4022000
  void AddError(int line, int column, const std::string& message) override {
    Record(line, column, message);
  }
#else
  void RecordError(int line, int column, absl::string_view message) override {
    Record(line, column, message);
  }
#endif
  const std::string& text() const { return text_; }

 private:
  void Record(int line, int column, absl::string_view message) {
    if (text_.empty()) text_ = absl::StrCat(line + 1, ":", column + 1, ": ", message);
  }

  std::string text_;
};

absl::StatusOr<ServerConfig> ReadFile(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  if (!file || std::filesystem::is_directory(path)) {
    return absl::InvalidArgumentError(absl::StrCat("--config: cannot read ", path));
  }
  FirstError error;
  google::protobuf::TextFormat::Parser parser;
  parser.RecordErrorsTo(&error);
  ServerConfig config;
  if (!parser.ParseFromString(text.str(), &config)) {
    return absl::InvalidArgumentError(absl::StrCat("--config: ", path, ":", error.text()));
  }
  return config;
}

bool SetField(const FieldDescriptor& field, absl::string_view value, ServerConfig* config) {
  const auto* reflection = config->GetReflection();
  int32_t int32 = 0;
  int64_t int64 = 0;
  bool boolean = false;
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_STRING:
      reflection->SetString(config, &field, std::string(value));
      return true;
    case FieldDescriptor::CPPTYPE_INT32:
      if (!absl::SimpleAtoi(value, &int32)) return false;
      reflection->SetInt32(config, &field, int32);
      return true;
    case FieldDescriptor::CPPTYPE_INT64:
      if (!absl::SimpleAtoi(value, &int64)) return false;
      reflection->SetInt64(config, &field, int64);
      return true;
    case FieldDescriptor::CPPTYPE_BOOL:
      if (!absl::SimpleAtob(value, &boolean)) return false;
      reflection->SetBool(config, &field, boolean);
      return true;
    default:
      return false;
  }
}

absl::Status SetFlag(absl::string_view arg, ServerConfig* config) {
  absl::string_view body = arg;
  if (!absl::ConsumePrefix(&body, "--")) {
    return absl::InvalidArgumentError(absl::StrCat("not a flag: ", arg));
  }
  const std::pair<std::string, std::string> flag = absl::StrSplit(body, absl::MaxSplits('=', 1));
  const FieldDescriptor* field = ServerConfig::descriptor()->FindFieldByName(flag.first);
  if (field == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("unknown flag --", flag.first));
  }
  const bool bare = !absl::StrContains(body, '=');
  const bool is_bool = field->cpp_type() == FieldDescriptor::CPPTYPE_BOOL;
  if ((bare && !is_bool) || !SetField(*field, bare ? "true" : flag.second, config)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--", flag.first, ": expected ", field->cpp_type_name(), ", found \"", flag.second, "\""));
  }
  return absl::OkStatus();
}

std::string ValueText(const ServerConfig& config, const FieldDescriptor& field) {
  const auto* reflection = config.GetReflection();
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_STRING:
      return reflection->GetString(config, &field);
    case FieldDescriptor::CPPTYPE_INT32:
      return absl::StrCat(reflection->GetInt32(config, &field));
    case FieldDescriptor::CPPTYPE_INT64:
      return absl::StrCat(reflection->GetInt64(config, &field));
    default:
      return reflection->GetBool(config, &field) ? "true" : "false";
  }
}

absl::Status OneOf(absl::string_view name, const std::string& value,
                   const std::vector<std::string>& allowed) {
  for (const std::string& choice : allowed) {
    if (value == choice) return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "--", name, ": expected one of ", absl::StrJoin(allowed, ", "), ", found \"", value, "\""));
}

absl::Status AtLeast(absl::string_view name, int64_t value, int64_t least) {
  if (value >= least) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("--", name, ": expected at least ", least, ", found ", value));
}

absl::Status AtMost(absl::string_view name, int64_t value, int64_t most) {
  if (value <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("--", name, ": expected at most ", most, ", found ", value));
}

absl::Status IsDuration(absl::string_view name, const std::string& text) {
  absl::Duration duration;
  if (absl::ParseDuration(text, &duration) && duration >= absl::ZeroDuration() &&
      duration < absl::InfiniteDuration()) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--", name, ": expected a duration such as 30s, found \"", text, "\""));
}

absl::Status IsChunk(absl::string_view name, int64_t value) {
  if (value == -1 || (value >= 0 && value % kKernelChunk == 0)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("--", name, ": expected a multiple of ", kKernelChunk, ", found ", value));
}

absl::Status IsMode(absl::string_view name, const std::string& text) {
  const bool octal =
      !text.empty() && text.size() <= 4 && text.find_first_not_of("01234567") == std::string::npos;
  if (octal && std::stoi(text, nullptr, 8) <= 0777) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("--", name, ": expected an octal mode such as 0660, found \"", text, "\""));
}

// Every address is one, and none is in plain text to other hosts unless that is wanted.
absl::Status ListensSafely(const ServerConfig& config) {
  if (Addresses(config).empty()) return absl::InvalidArgumentError("--listen: no address");
  for (const std::string& text : Addresses(config)) {
    const absl::StatusOr<Address> address = ParseAddress(text);
    if (!address.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("--listen: ", address.status().message()));
    }
    if (IsLocal(*address) || config.insecure() || !config.tls_cert().empty()) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("--listen: ", text, " would be served in plain text to other hosts: give ",
                     "--tls_cert and --tls_key, or --insecure"));
  }
  return absl::OkStatus();
}

absl::Status TlsIsWhole(const ServerConfig& config) {
  if (config.tls_cert().empty() != config.tls_key().empty()) {
    return absl::InvalidArgumentError("--tls_cert, --tls_key: one needs the other");
  }
  if (!config.tls_client_ca().empty() && config.tls_cert().empty()) {
    return absl::InvalidArgumentError("--tls_client_ca: needs --tls_cert and --tls_key");
  }
  return absl::OkStatus();
}

absl::Status IsLongDuration(absl::string_view name, const std::string& text) {
  absl::Status status = IsDuration(name, text);
  if (!status.ok() || DurationOf(text) >= absl::Seconds(1)) return status;
  return absl::InvalidArgumentError(
      absl::StrCat("--", name, ": expected at least 1s, found \"", text, "\""));
}

}  // namespace

absl::StatusOr<ServerConfig> ParseFlags(const std::vector<std::string>& args) {
  ServerConfig config;
  std::vector<absl::string_view> flags;
  for (const std::string& arg : args) {
    absl::string_view path = arg;
    if (!absl::ConsumePrefix(&path, "--config=")) {
      flags.push_back(arg);
      continue;
    }
    const absl::StatusOr<ServerConfig> file = ReadFile(std::string(path));
    if (!file.ok()) return file.status();
    config.MergeFrom(*file);
  }
  for (const absl::string_view flag : flags) {
    if (const absl::Status status = SetFlag(flag, &config); !status.ok()) return status;
  }
  return config;
}

std::string FlagHelp() {
  std::string text = "Usage: gdn-server --model=DIR [--flag=value…] [--config=FILE]\n\n";
  const Descriptor* descriptor = ServerConfig::descriptor();
  for (int i = 0; i < descriptor->field_count(); ++i) {
    const FieldDescriptor& field = *descriptor->field(i);
    absl::StrAppendFormat(&text, "  --%-22s %s (default \"%s\")\n", field.name(),
                          field.options().GetExtension(config::help),
                          ValueText(ServerConfig(), field));
  }
  return text;
}

std::string AsFlags(const ServerConfig& config) {
  std::vector<std::string> flags;
  const Descriptor* descriptor = ServerConfig::descriptor();
  for (int i = 0; i < descriptor->field_count(); ++i) {
    const FieldDescriptor& field = *descriptor->field(i);
    flags.push_back(absl::StrCat("--", field.name(), "=", ValueText(config, field)));
  }
  return absl::StrJoin(flags, " ");
}

absl::Status Validate(const ServerConfig& config) {
  const std::vector<absl::Status> checks = {
      config.model().empty()
          ? absl::InvalidArgumentError("--model: a checkpoint's directory is required")
          : absl::OkStatus(),
      ListensSafely(config),
      TlsIsWhole(config),
      OneOf("dtype", config.dtype(), {"auto", "fp32", "bf16", "fp16"}),
      OneOf("state_dtype", config.state_dtype(), {"fp32", "bf16"}),
      OneOf("backend", config.backend(), {"auto", "cpu", "cuda"}),
      OneOf("log_level", config.log_level(), {"debug", "info", "warn", "error"}),
      AtLeast("slots", config.slots(), 1),
      AtLeast("max_rows", config.max_rows(), 1),
      AtMost("max_rows", config.max_rows(), kMostRows),
      AtLeast("max_tokens", config.max_tokens(), 1),
      AtLeast("max_decode_tokens", config.max_decode_tokens(), 1),
      AtLeast("max_message_bytes", config.max_message_bytes(), 0),
      AtLeast("max_queue_steps", config.max_queue_steps(), 1),
      AtLeast("max_queue_rows", config.max_queue_rows(), 1),
      AtLeast("max_queue_bytes", config.max_queue_bytes(), 1),
      AtLeast("replay_bytes", config.replay_bytes(), 0),
      AtLeast("threads", config.threads(), 0),
      IsChunk("prefill_chunk", config.prefill_chunk()),
      IsDuration("step_ttl", config.step_ttl()),
      IsDuration("max_ttl", config.max_ttl()),
      IsDuration("prefill_max_wait", config.prefill_max_wait()),
      IsDuration("drain_timeout", config.drain_timeout()),
      IsMode("unix_socket_mode", config.unix_socket_mode()),
      IsLongDuration("reload_interval", config.reload_interval()),
      IsLongDuration("max_connection_idle", config.max_connection_idle()),
      AtLeast("max_connections", config.max_connections(), 1),
      AtLeast("max_streams", config.max_streams(), 1),
      AtLeast("max_metadata_bytes", config.max_metadata_bytes(), 1024),
  };
  for (const absl::Status& check : checks) {
    if (!check.ok()) return check;
  }
  return absl::OkStatus();
}

absl::Duration DurationOf(const std::string& text) {
  absl::Duration duration = absl::ZeroDuration();
  absl::ParseDuration(text, &duration);
  return duration;
}

mode_t UnixSocketMode(const ServerConfig& config) {
  return static_cast<mode_t>(std::stoi(config.unix_socket_mode(), nullptr, 8));
}

std::vector<std::string> Addresses(const ServerConfig& config) {
  return absl::StrSplit(config.listen(), ',', absl::SkipWhitespace());
}

}  // namespace gdn
