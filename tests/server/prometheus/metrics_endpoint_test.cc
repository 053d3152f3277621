#include "server/prometheus/metrics_endpoint.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gdn {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

TEST(MetricsEndpointTest, AFreePortIsSaid) {
  const Readiness readiness;
  const auto endpoint = MetricsEndpoint::Start(readiness, "127.0.0.1:0");
  ASSERT_TRUE(endpoint.ok()) << endpoint.status();
  EXPECT_THAT((*endpoint)->address(), StartsWith("127.0.0.1:"));
  EXPECT_NE((*endpoint)->address(), "127.0.0.1:0");
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
}

}  // namespace
}  // namespace gdn
