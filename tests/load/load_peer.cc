// What the server is put beside under load: the echo, or the whole service on the null backend.
//
//   load_peer echo|null ADDR…     ADDR is host:port (port 0: a free one) or unix:PATH
//
// Prints a ready line as gdn-server does and runs until SIGTERM. The null backend then says how
// many batches it was given and their rows.
#include <pthread.h>

#include <csignal>
#include <cstdio>
#include <string>
#include <vector>

#include "absl/strings/str_join.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/server_builder.h"
#include "server/allocator.h"
#include "server/service/transport.h"
#include "tests/bench/null_server.h"
#include "tests/load/echo_service.h"

namespace gdn {
namespace {

constexpr int kSlots = 512;
constexpr int64_t kMaxMessageBytes = 64 << 20;

void PrintReady(const std::vector<std::string>& addresses) {
  std::printf("ready: listening on %s\n", absl::StrJoin(addresses, ",").c_str());
  std::fflush(stdout);
}

void AwaitEnd(const sigset_t& signals) {
  int signal = 0;
  sigwait(&signals, &signal);
}

int RunNull(const std::vector<std::string>& addresses, const sigset_t& signals) {
  const NullServer server(NullShape(kSlots), addresses, /*reflection=*/true);
  PrintReady(server.addresses());
  AwaitEnd(signals);
  std::printf("batches %lld rows %lld\n", static_cast<long long>(server.backend().batches()),
              static_cast<long long>(server.backend().rows()));
  return 0;
}

int RunEcho(std::vector<std::string> addresses, const sigset_t& signals) {
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  EchoService service;
  grpc::ServerBuilder builder;
  TuneServer({.message_bytes = kMaxMessageBytes}, &builder);
  std::vector<int> ports(addresses.size(), 0);
  for (size_t i = 0; i < addresses.size(); ++i) {
    builder.AddListeningPort(addresses[i], grpc::InsecureServerCredentials(), &ports[i]);
  }
  builder.RegisterService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr) return 1;
  for (size_t i = 0; i < addresses.size(); ++i) {
    if (addresses[i].starts_with("unix:")) continue;
    addresses[i] = addresses[i].substr(0, addresses[i].rfind(':') + 1) + std::to_string(ports[i]);
  }
  PrintReady(addresses);
  AwaitEnd(signals);
  return 0;
}

int Main(const std::vector<std::string>& args) {
  TuneAllocator();
  TuneProcess();
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  if (args.size() >= 2 && args[0] == "null")
    return RunNull({args.begin() + 1, args.end()}, signals);
  if (args.size() >= 2 && args[0] == "echo")
    return RunEcho({args.begin() + 1, args.end()}, signals);
  std::fprintf(stderr, "usage: load_peer echo|null ADDR...\n");
  return 2;
}

}  // namespace
}  // namespace gdn

int main(int argc, char** argv) { return gdn::Main({argv + 1, argv + argc}); }
