#include "server/service/grpc_server.h"

#include <sys/socket.h>
#include <sys/un.h>

#include "absl/strings/str_cat.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "tests/server/service/service_harness.h"

namespace gdn::test {
namespace {

using ::testing::HasSubstr;
using ::testing::MatchesRegex;

class GrpcServerTest : public ServiceHarness {
 protected:
  // grpc.health.v1: HealthCheckRequest.service and HealthCheckResponse.status, both field 1.
  std::string Health(const std::string& service) {
    std::string request;
    if (!service.empty()) {
      request = absl::StrCat("\x0a", std::string(1, static_cast<char>(service.size())), service);
    }
    std::string response;
    const grpc::Status status = Raw("/grpc.health.v1.Health/Check", request, &response);
    if (!status.ok()) return absl::StrCat("code ", status.error_code());
    return response == "\x08\x01" ? "SERVING" : response == "\x08\x02" ? "NOT_SERVING" : response;
  }
  void ExpectHealth(const std::string& health) {
    for (const char* service : {"", "gdn.v1.GdnService", "gdn.v1.SequenceService"}) {
      EXPECT_EQ(Health(service), health) << service;
    }
  }
};

TEST_F(GrpcServerTest, HealthFollowsReadinessAndDrain) {
  ExpectHealth("NOT_SERVING");
  Host();
  ExpectHealth("SERVING");
  server_->SetServing(false);
  ExpectHealth("NOT_SERVING");
  EXPECT_EQ(Health("gdn.v1.Other"), absl::StrCat("code ", grpc::NOT_FOUND));
}

TEST_F(GrpcServerTest, ALostDeviceTurnsHealth) {
  Host();
  backend_.LoseDevice();
  EXPECT_FALSE(Decode(ById({"a"}, {1}, true)).ok());
  ExpectHealth("NOT_SERVING");
}

TEST_F(GrpcServerTest, ReflectionListsTheServices) {
  // grpc.reflection.v1alpha: ServerReflectionRequest.list_services is field 7.
  std::string response;
  const grpc::Status status = Raw("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
                                  std::string_view("\x3a\x00", 2), &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  for (const char* service :
       {"gdn.v1.GdnService", "gdn.v1.SequenceService", "grpc.health.v1.Health"}) {
    EXPECT_THAT(response, HasSubstr(service));
  }
}

TEST_F(GrpcServerTest, ListensOnSeveralAddresses) {
  const std::string socket = absl::StrCat("unix:", folder_, "/second");
  auto server = GrpcServer::Start(readiness_, {.addresses = {"127.0.0.1:0", socket}});
  ASSERT_TRUE(server.ok()) << server.status();
  const std::vector<std::string>& addresses = (*server)->addresses();
  ASSERT_EQ(addresses.size(), 2u);
  EXPECT_THAT(addresses[0], MatchesRegex("127.0.0.1:[1-9][0-9]*"));
  EXPECT_EQ(addresses[1], socket);
  Host();
  for (const std::string& address : addresses) {
    const auto stub =
        v1::GdnService::NewStub(grpc::CreateChannel(address, grpc::InsecureChannelCredentials()));
    grpc::ClientContext context;
    v1::GetServerInfoResponse info;
    EXPECT_TRUE(stub->GetServerInfo(&context, {}, &info).ok()) << address;
  }
  (*server)->Shutdown(absl::Seconds(10));
}

TEST_F(GrpcServerTest, AnAddressThatCannotBeHadIsNamed) {
  for (const std::string& address :
       {absl::StrCat("unix:", folder_, "/no/such/folder"), std::string("no.such.host.invalid:1")}) {
    const auto server = GrpcServer::Start(readiness_, {.addresses = {"127.0.0.1:0", address}});
    ASSERT_FALSE(server.ok());
    EXPECT_EQ(server.status().code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(std::string(server.status().message()), HasSubstr(address));
  }
}

TEST_F(GrpcServerTest, AnAddressInUseIsNotShared) {
  auto first = GrpcServer::Start(readiness_, {.addresses = {"127.0.0.1:0"}});
  ASSERT_TRUE(first.ok());
  const auto second = GrpcServer::Start(readiness_, {.addresses = {(*first)->addresses()[0]}});
  EXPECT_FALSE(second.ok());
}

// A connection that says nothing.
FileDescriptor SilentConnection(const std::string& path) {
  sockaddr_un name = {};
  name.sun_family = AF_UNIX;
  path.copy(name.sun_path, sizeof(name.sun_path) - 1);
  FileDescriptor fd(socket(AF_UNIX, SOCK_STREAM, 0));
  EXPECT_EQ(connect(fd.get(), reinterpret_cast<sockaddr*>(&name), sizeof(name)), 0);
  return fd;
}

// gRPC says its settings first to whom it takes.
bool IsTaken(const FileDescriptor& connection) {
  char byte;
  return recv(connection.get(), &byte, 1, 0) == 1;
}

TEST_F(GrpcServerTest, NoMoreConnectionsThanAllowed) {
  const std::string path = absl::StrCat(folder_, "/few");
  const auto server = GrpcServer::Start(
      readiness_, {.addresses = {absl::StrCat("unix:", path)}, .max_connections = 2});
  ASSERT_TRUE(server.ok()) << server.status();
  FileDescriptor first = SilentConnection(path);
  const FileDescriptor second = SilentConnection(path);
  EXPECT_TRUE(IsTaken(first));
  EXPECT_TRUE(IsTaken(second));
  EXPECT_FALSE(IsTaken(SilentConnection(path)));
  first = FileDescriptor();
  while (!IsTaken(SilentConnection(path))) std::this_thread::yield();
}

TEST_F(GrpcServerTest, MoreConnectionsThanFilesAreRefused) {
  const auto server =
      GrpcServer::Start(readiness_, {.addresses = {"127.0.0.1:0"}, .max_connections = 1 << 30});
  EXPECT_EQ(server.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(server.status().message()), HasSubstr("--max_connections"));
}

}  // namespace
}  // namespace gdn::test
