#include "client/cpp/ctl.h"

#include <fstream>
#include <memory>
#include <optional>

#include "client/cpp/bench.h"
#include "client/cpp/client.h"
#include "client/cpp/ctl_facts.h"
#include "client/cpp/ctl_options.h"
#include "client/cpp/top.h"
#include "nlohmann/json.hpp"

namespace gdn::client {
namespace {

// The first word of the file; empty where it cannot be read.
std::string ReadToken(const std::string& path) {
  std::string token;
  std::ifstream(path) >> token;
  return token;
}

Error RunCommand(const CtlOptions& options, const std::string& token, std::ostream& out,
                 std::ostream& err) {
  const MakeClient make_client = [&] {
    return std::make_unique<Client>(Connect(options.target, options.tls, token));
  };
  if (options.command == "bench") return RunBench(options, make_client, out, err);
  if (options.command == "top") {
    Error error;
    if (!RunTop(options, out, &error.message)) error.code = grpc::UNAVAILABLE;
    return error;
  }
  const std::unique_ptr<Client> client = make_client();
  if (options.command == "info") return RunInfo(*client, options, out);
  if (options.command == "health") return RunHealth(*client, options, out);
  if (options.command == "ls") return RunLs(*client, options, out);
  return RunRelease(*client, options, out);
}

std::string AsJson(const Error& error) {
  nlohmann::ordered_json json = {{"code", CodeName(error.code)}, {"message", error.message}};
  if (error.reason != v1::ERROR_REASON_UNSPECIFIED) json["reason"] = ReasonName(error.reason);
  return nlohmann::ordered_json{{"error", json}}.dump();
}

}  // namespace

int RunCtl(const std::vector<std::string>& arguments, std::ostream& out, std::ostream& err) {
  if (arguments == std::vector<std::string>{"--help"}) return out << kCtlUsage, 0;
  const std::optional<CtlOptions> options = ParseCtl(arguments);
  if (!options) return err << kCtlUsage, 2;
  const std::string token = ReadToken(options->token_file);
  if (token.empty() && !options->token_file.empty()) {
    return err << "gdn-ctl: no token in " << options->token_file << '\n', 2;
  }
  const Error error = RunCommand(*options, token, out, err);
  if (error.ok()) return 0;
  err << (options->json ? AsJson(error) : "gdn-ctl: " + ToString(error)) << '\n';
  return 1;
}

}  // namespace gdn::client
