// Tokens in front of every method of a whole server.
#include <cstdio>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "gdn/v1/shared_memory_service.pb.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "server/listen/token_file.h"
#include "tests/server/service/service_harness.h"

namespace gdn::test {
namespace {

constexpr char kReader[] = "Bearer 0123456789abcdef";
constexpr char kOwner[] = "bearer fedcba9876543210";  // the scheme's case does not matter

class AuthorizeTest : public ServiceHarness {
 protected:
  AuthorizeTest()
      : ServiceHarness(/*shared_memory=*/true), path_(absl::StrCat(folder_, "/tokens")) {
    std::ofstream(path_) << "reader read 0123456789abcdef\nowner all fedcba9876543210\n";
    tokens_ = *TokenFile::Open(path_, absl::Hours(1), [](const absl::Status&) {});
    guarded_.instance_id = "guarded";
    guarded_.tokens = tokens_.get();
    guarded_server_ =
        *GrpcServer::Start(guarded_, {.addresses = {absl::StrCat("unix:", folder_, "/guarded")},
                                      .reflection = true,
                                      .shared_memory = true});
    Host();
    guarded_.hosted = &hosted_;
    guarded_server_->SetServing(true);
    channel_ =
        grpc::CreateChannel(guarded_server_->addresses()[0], grpc::InsecureChannelCredentials());
  }
  ~AuthorizeTest() override {
    EndEngine();
    guarded_server_->Shutdown(absl::Seconds(10));
  }

  // Every method of gdn.v1, as a path.
  static std::vector<std::string> Methods() {
    std::vector<std::string> methods;
    for (const auto* file : {v1::GetServerInfoRequest::descriptor()->file(),
                             v1::GetSequenceRequest::descriptor()->file(),
                             v1::ServeRingRequest::descriptor()->file()}) {
      for (int s = 0; s < file->service_count(); ++s) {
        for (int m = 0; m < file->service(s)->method_count(); ++m) {
          const auto* method = file->service(s)->method(m);
          methods.push_back(absl::StrCat("/", method->service()->full_name(), "/", method->name()));
        }
      }
    }
    return methods;
  }

  const std::string path_;
  std::unique_ptr<TokenFile> tokens_;
  Readiness guarded_;
  std::unique_ptr<GrpcServer> guarded_server_;
};

TEST_F(AuthorizeTest, NoMethodIsOpen) {
  ASSERT_GE(Methods().size(), 11u);
  for (const std::string& method : Methods()) {
    const grpc::Status status = Raw(method, "");
    if (status.error_code() == grpc::UNIMPLEMENTED) continue;
    EXPECT_EQ(status.error_code(), grpc::UNAUTHENTICATED) << method;
    EXPECT_EQ(ReasonOf(status), "TOKEN_INVALID") << method;
  }
}

TEST_F(AuthorizeTest, AReaderOnlyReads) {
  for (const std::string& method : Methods()) {
    authorization_ = kReader;
    const grpc::Status status = Raw(method, "");
    if (status.error_code() == grpc::UNIMPLEMENTED) continue;
    const bool reads =
        method.find("/Get") != std::string::npos || method.find("/List") != std::string::npos;
    EXPECT_EQ(status.error_code() == grpc::PERMISSION_DENIED, !reads) << method;
    if (!reads) {
      EXPECT_EQ(ReasonOf(status), "METHOD_DENIED") << method;
    }
  }
}

TEST_F(AuthorizeTest, AnOwnerMayDoAll) {
  authorization_ = kOwner;
  for (const std::string& method : Methods()) {
    const grpc::StatusCode code = Raw(method, "").error_code();
    EXPECT_NE(code, grpc::UNAUTHENTICATED) << method;
    EXPECT_NE(code, grpc::PERMISSION_DENIED) << method;
  }
}

TEST_F(AuthorizeTest, WhatIsNoBearerTokenIsNone) {
  for (const char* header : {"", "Bearer", "Bearer ", "0123456789abcdef", "Basic 0123456789abcdef",
                             "Bearer  0123456789abcdef", "Bearer 0123456789abcdeF"}) {
    authorization_ = header;
    EXPECT_EQ(Raw("/gdn.v1.GdnService/GetServerInfo", "").error_code(), grpc::UNAUTHENTICATED)
        << header;
  }
}

TEST_F(AuthorizeTest, HealthIsOpenAndReflectionIsNot) {
  EXPECT_TRUE(Raw("/grpc.health.v1.Health/Check", "").ok());
  const char* reflection = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";
  const std::string_view list_services("\x3a\x00", 2);
  EXPECT_EQ(Raw(reflection, list_services).error_code(), grpc::UNAUTHENTICATED);
  authorization_ = kReader;
  EXPECT_TRUE(Raw(reflection, list_services).ok());
}

TEST_F(AuthorizeTest, ATokenThatWasRemovedIsRefused) {
  authorization_ = kReader;
  EXPECT_TRUE(Raw("/gdn.v1.GdnService/GetServerInfo", "").ok());
  std::ofstream(path_) << "owner all fedcba9876543210\n";
  tokens_->Reload();
  EXPECT_EQ(Raw("/gdn.v1.GdnService/GetServerInfo", "").error_code(), grpc::UNAUTHENTICATED);
}

}  // namespace
}  // namespace gdn::test
