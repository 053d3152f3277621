#include "client/cpp/ctl_options.h"

#include <charconv>
#include <map>
#include <variant>

namespace gdn::client {

const std::string_view kCtlUsage =
    R"(usage: gdn-ctl [FLAG...] COMMAND

  info                    what the server hosts and allows
  health                  SERVING or not
  ls                      its sequences
  release ID...           ends sequences
  top                     slots, rates and latencies, live, of a server with --metrics_listen
  bench [decode|prefill]  a load of decodes, then one of prefills; or one of them

  --target=ADDR      host:port or unix:PATH (127.0.0.1:50051)
  --token_file=FILE  file of the bearer token for a server that asks for one
  --tls              speak TLS; so does every flag below
  --tls_ca=FILE      PEM: authorities of the server's certificate (the system's)
  --tls_cert=FILE    PEM: the certificate to show to the server
  --tls_key=FILE     PEM: its key
  --tls_server_name=NAME  the name in the server's certificate (that of ADDR)

  --json             JSON instead of tables: one object, for top one a line
  --sort=KEY         ls: slot; age, the oldest first; lease, the one that ends next first (slot)
  --metrics=ADDR     top: host:port of the server's --metrics_listen (127.0.0.1:9464)
  --interval=S       top: seconds between two views (1)
  --iterations=N     top: views; 0: until it is ended (0)
  --seconds=S        bench: how long each load lasts (5)
  --concurrency=N    bench: callers, each with a connection of its own (4)
  --rows=N           bench: rows of a call; every row of every caller takes a slot (1)
  --tokens=N         bench: tokens of a prefill's row (256)
)";

namespace {

using Field = std::variant<std::string*, double*, int*>;

std::map<std::string_view, Field> TlsFieldsOf(Tls* tls) {
  return {{"--tls_ca", &tls->ca},
          {"--tls_cert", &tls->cert},
          {"--tls_key", &tls->key},
          {"--tls_server_name", &tls->server_name}};
}

std::map<std::string_view, Field> FieldsOf(CtlOptions* options) {
  return {{"--target", &options->target},     {"--token_file", &options->token_file},
          {"--sort", &options->sort},         {"--metrics", &options->metrics},
          {"--interval", &options->interval}, {"--iterations", &options->iterations},
          {"--seconds", &options->seconds},   {"--concurrency", &options->concurrency},
          {"--rows", &options->rows},         {"--tokens", &options->tokens}};
}

bool Set(std::string_view text, std::string* field) {
  *field = text;
  return !text.empty();
}

template <typename Number>
bool Set(std::string_view text, Number* field) {
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, *field);
  return error == std::errc() && stop == end;
}

bool TakeFlag(std::string_view argument, CtlOptions* options) {
  if (argument == "--json") return options->json = true;
  if (argument.starts_with("--tls") && !options->tls) options->tls.emplace();
  if (argument == "--tls") return true;
  const size_t equals = argument.find('=');
  if (equals == std::string_view::npos) return false;
  const auto fields =
      argument.starts_with("--tls") ? TlsFieldsOf(&*options->tls) : FieldsOf(options);
  const auto field = fields.find(argument.substr(0, equals));
  if (field == fields.end()) return false;
  return std::visit([&](auto* at) { return Set(argument.substr(equals + 1), at); }, field->second);
}

bool WordsFit(const CtlOptions& options) {
  const std::vector<std::string>& words = options.words;
  if (options.command == "release") return !words.empty();
  if (options.command == "bench") {
    return words.empty() || (words.size() == 1 && (words[0] == "decode" || words[0] == "prefill"));
  }
  for (const std::string_view command : {"info", "health", "ls", "top"}) {
    if (options.command == command) return words.empty();
  }
  return false;
}

bool ValuesFit(const CtlOptions& o) {
  return (o.sort == "slot" || o.sort == "age" || o.sort == "lease") && o.interval > 0 &&
         o.iterations >= 0 && o.seconds > 0 && o.concurrency > 0 && o.rows > 0 && o.tokens > 0;
}

}  // namespace

std::optional<CtlOptions> ParseCtl(const std::vector<std::string>& arguments) {
  CtlOptions options;
  for (const std::string& argument : arguments) {
    if (argument.starts_with("-")) {
      if (!TakeFlag(argument, &options)) return std::nullopt;
    } else if (options.command.empty()) {
      options.command = argument;
    } else {
      options.words.push_back(argument);
    }
  }
  if (!WordsFit(options) || !ValuesFit(options)) return std::nullopt;
  return options;
}

}  // namespace gdn::client
