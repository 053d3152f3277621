#include "server/prometheus/metrics_endpoint.h"

#include <cstddef>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/tcp.h"

namespace gdn {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

// Every thread of this program has this much beside its stack, and the C library takes it out of
// the stack. In the server it is cuBLAS that brings such variables: no thread may ask for a small
// stack.
thread_local volatile std::byte thread_storage[256 << 10];

TEST(MetricsEndpointTest, AFreePortIsSaid) {
  thread_storage[0] = std::byte{1};
  const Readiness readiness;
  const auto endpoint = MetricsEndpoint::Start(readiness, "127.0.0.1:0");
  ASSERT_TRUE(endpoint.ok()) << endpoint.status();
  EXPECT_THAT((*endpoint)->address(), StartsWith("127.0.0.1:"));
  EXPECT_NE((*endpoint)->address(), "127.0.0.1:0");
}

TEST(MetricsEndpointTest, ItAnswersAsPrometheusAsks) {
  const Readiness readiness;
  const auto endpoint = MetricsEndpoint::Start(readiness, "127.0.0.1:0");
  ASSERT_TRUE(endpoint.ok()) << endpoint.status();
  const FileDescriptor fd = test::TcpSocket();
  test::Connect(fd, (*endpoint)->address().substr(sizeof("127.0.0.1:") - 1));
  EXPECT_TRUE(test::Send(fd, "GET /metrics HTTP/1.1\r\n\r\n"));
  EXPECT_THAT(test::ReadAll(fd),
              AllOf(StartsWith("HTTP/1.1 200 OK\r\n"),
                    HasSubstr("Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"),
                    HasSubstr("\ngdn_serving 0\n")));
}

TEST(MetricsEndpointTest, AnAddressThatCannotBeHadIsNamedWithTheReason) {
  const Readiness readiness;
  const auto first = MetricsEndpoint::Start(readiness, "127.0.0.1:0");
  ASSERT_TRUE(first.ok()) << first.status();
  const auto expect_refused = [&](const std::string& address, const std::string& reason) {
    const auto second = MetricsEndpoint::Start(readiness, address);
    EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(second.status().message(), AllOf(HasSubstr(address), HasSubstr(reason)));
  };
  expect_refused((*first)->address(), "in use");
  expect_refused("nowhere", "port");
  expect_refused("unix:/tmp/metrics.sock", "port");
}

}  // namespace
}  // namespace gdn
