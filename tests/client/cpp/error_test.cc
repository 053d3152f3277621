#include "client/cpp/error.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/client/cpp/fake_server.h"

namespace gdn::client {
namespace {

using ::testing::ElementsAre;

TEST(DecodeError, ReadsEveryDetail) {
  for (const Error& error : {DecodeError(NotFound()), DecodeError(ToGrpc(NotFound()))}) {
    EXPECT_FALSE(error.ok());
    EXPECT_EQ(error.code, grpc::NOT_FOUND);
    EXPECT_EQ(error.message, "Row 1 is gone.");
    EXPECT_EQ(error.reason, v1::ERROR_REASON_SEQUENCE_NOT_FOUND);
    EXPECT_EQ(error.metadata.at("instance_id"), "fake-1");
    EXPECT_EQ(error.retry_delay, std::chrono::nanoseconds(1'000'000'005));
    ASSERT_EQ(error.rows.size(), 1u);
    EXPECT_THAT(error.rows[0].rows(), ElementsAre(1, 3));
  }
}

TEST(DecodeError, AStatusOfGrpcItselfHasNoReason) {
  const Error error = DecodeError(grpc::Status(grpc::RESOURCE_EXHAUSTED, "too large"));
  EXPECT_EQ(error.code, grpc::RESOURCE_EXHAUSTED);
  EXPECT_EQ(error.message, "too large");
  EXPECT_EQ(error.reason, v1::ERROR_REASON_UNSPECIFIED);
  EXPECT_TRUE(error.metadata.empty());
}

TEST(DecodeError, DetailsOfAnotherFormAreNone) {
  const Error error = DecodeError(grpc::Status(grpc::ABORTED, "m", "\xff\xff no message"));
  EXPECT_EQ(error.code, grpc::ABORTED);
  EXPECT_TRUE(error.rows.empty());
  EXPECT_TRUE(DecodeError(grpc::Status::OK).ok());
}

TEST(ToString, SaysEverything) {
  EXPECT_EQ(ToString(Error{}), "OK");
  EXPECT_EQ(ToString(DecodeError(NotFound())),
            "NOT_FOUND SEQUENCE_NOT_FOUND: Row 1 is gone. (instance_id=fake-1); "
            "SEQUENCE_NOT_FOUND in rows 1, 3");
  EXPECT_EQ(CodeName(static_cast<grpc::StatusCode>(77)), "77");
}

}  // namespace
}  // namespace gdn::client
