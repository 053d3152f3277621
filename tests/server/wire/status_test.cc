#include "server/wire/status.h"

#include <fstream>
#include <regex>

#include "gmock/gmock.h"
#include "google/rpc/error_details.pb.h"
#include "gtest/gtest.h"

namespace gdn {
namespace {

using ::testing::ElementsAre;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

Fault MakeFault(v1::ErrorReason reason) { return FaultOf(reason, "A sentence."); }

// The details of type `Detail`, in order.
template <typename Detail>
std::vector<Detail> Details(const google::rpc::Status& status) {
  std::vector<Detail> details;
  for (const google::protobuf::Any& any : status.details()) {
    Detail detail;
    if (any.UnpackTo(&detail)) details.push_back(detail);
  }
  return details;
}

const std::map<std::string, grpc::StatusCode>& CodesByName() {
  static const std::map<std::string, grpc::StatusCode> codes = {
      {"INVALID_ARGUMENT", grpc::INVALID_ARGUMENT},
      {"NOT_FOUND", grpc::NOT_FOUND},
      {"ABORTED", grpc::ABORTED},
      {"ALREADY_EXISTS", grpc::ALREADY_EXISTS},
      {"RESOURCE_EXHAUSTED", grpc::RESOURCE_EXHAUSTED},
      {"UNAVAILABLE", grpc::UNAVAILABLE},
      {"FAILED_PRECONDITION", grpc::FAILED_PRECONDITION},
      {"UNAUTHENTICATED", grpc::UNAUTHENTICATED},
      {"PERMISSION_DENIED", grpc::PERMISSION_DENIED},
      {"DATA_LOSS", grpc::DATA_LOSS},
      {"INTERNAL", grpc::INTERNAL},
  };
  return codes;
}

// The code that the comment above each value of ErrorReason begins with.
std::map<std::string, std::string> DocumentedCodes() {
  std::ifstream file(GDN_ERRORS_PROTO);
  EXPECT_TRUE(file.is_open()) << GDN_ERRORS_PROTO;
  static const std::regex comment(R"(^  // ([A-Z_]+)\. .*)");
  static const std::regex value(R"(^  (ERROR_REASON_[A-Z_]+) = \d+;)");
  std::map<std::string, std::string> codes;
  std::string code;
  std::smatch match;
  for (std::string line; std::getline(file, line);) {
    if (std::regex_match(line, match, comment)) code = match[1];
    if (std::regex_search(line, match, value)) codes[match[1]] = std::exchange(code, "");
  }
  return codes;
}

TEST(CodeOf, IsWhatErrorsProtoSays) {
  const std::map<std::string, std::string> documented = DocumentedCodes();
  EXPECT_EQ(documented.size(), static_cast<size_t>(v1::ErrorReason_descriptor()->value_count()));
  for (const auto& [name, code] : documented) {
    v1::ErrorReason reason;
    ASSERT_TRUE(v1::ErrorReason_Parse(name, &reason)) << name;
    if (reason == v1::ERROR_REASON_UNSPECIFIED) continue;
    ASSERT_TRUE(CodesByName().contains(code)) << name << " is documented as '" << code << "'";
    EXPECT_EQ(CodeOf(reason), CodesByName().at(code)) << name;
  }
}

TEST(CodeOf, NoReasonIsOk) {
  EXPECT_EQ(CodeOf(v1::ERROR_REASON_UNSPECIFIED), grpc::OK);
  EXPECT_TRUE(ToGrpcStatus({}, "i").ok());
  EXPECT_EQ(ToRpcStatus({}, "i").ByteSizeLong(), 0u);
}

TEST(ToRpcStatus, CarriesErrorInfo) {
  Fault fault = MakeFault(v1::ERROR_REASON_INPUT_SIZE_MISMATCH);
  fault.metadata = {{"expected_bytes", "8"}, {"actual_bytes", "4"}};
  const google::rpc::Status status = ToRpcStatus(fault, "instance");
  EXPECT_EQ(status.code(), grpc::INVALID_ARGUMENT);
  EXPECT_EQ(status.message(), "A sentence.");
  ASSERT_EQ(status.details_size(), 1);
  const google::rpc::ErrorInfo info = Details<google::rpc::ErrorInfo>(status).at(0);
  EXPECT_EQ(info.reason(), "INPUT_SIZE_MISMATCH");
  EXPECT_EQ(info.domain(), "gdn.v1");
  EXPECT_THAT(info.metadata(),
              UnorderedElementsAre(Pair("expected_bytes", "8"), Pair("actual_bytes", "4"),
                                   Pair("instance_id", "instance")));
}

TEST(ToRpcStatus, SaysWhenToRetry) {
  // Every RESOURCE_EXHAUSTED does, even where the fault names no time.
  const google::rpc::Status full = ToRpcStatus(MakeFault(v1::ERROR_REASON_SLOTS_EXHAUSTED), "i");
  ASSERT_EQ(Details<google::rpc::RetryInfo>(full).size(), 1u);
  EXPECT_GT(Details<google::rpc::RetryInfo>(full)[0].retry_delay().nanos(), 0);

  Fault loading = MakeFault(v1::ERROR_REASON_NOT_READY);
  EXPECT_TRUE(Details<google::rpc::RetryInfo>(ToRpcStatus(loading, "i")).empty());
  loading.retry_delay = absl::Milliseconds(2500);
  const auto retry = Details<google::rpc::RetryInfo>(ToRpcStatus(loading, "i"));
  ASSERT_EQ(retry.size(), 1u);
  EXPECT_EQ(retry[0].retry_delay().seconds(), 2);
  EXPECT_EQ(retry[0].retry_delay().nanos(), 500'000'000);
}

TEST(ToRpcStatus, NamesTheRowsOfEveryReason) {
  Fault fault;
  fault.AddRow(v1::ERROR_REASON_POSITION_MISMATCH, 2, 40);
  fault.AddRow(v1::ERROR_REASON_SEQUENCE_NOT_FOUND, 3);
  fault.AddRow(v1::ERROR_REASON_POSITION_MISMATCH, 5, 41);
  const google::rpc::Status status = ToRpcStatus(fault, "i");
  EXPECT_EQ(status.code(), grpc::ABORTED);
  EXPECT_EQ(Details<google::rpc::ErrorInfo>(status).at(0).reason(), "POSITION_MISMATCH");
  const auto rows = Details<v1::RowErrors>(status);
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].reason(), v1::ERROR_REASON_SEQUENCE_NOT_FOUND);
  EXPECT_THAT(rows[0].rows(), ElementsAre(3));
  EXPECT_THAT(rows[0].positions(), ElementsAre());
  EXPECT_EQ(rows[1].reason(), v1::ERROR_REASON_POSITION_MISMATCH);
  EXPECT_THAT(rows[1].rows(), ElementsAre(2, 5));
  EXPECT_THAT(rows[1].positions(), ElementsAre(40, 41));
}

TEST(ToRpcStatus, NamesTheFirst512Rows) {
  Fault fault;
  for (uint32_t row = 0; row < 2000; ++row) fault.AddRow(v1::ERROR_REASON_DUPLICATE_ROW, row);
  const auto rows = Details<v1::RowErrors>(ToRpcStatus(fault, "i"));
  ASSERT_EQ(rows.size(), 1u);
  ASSERT_EQ(rows[0].rows_size(), 512);
  EXPECT_EQ(rows[0].rows(511), 511u);
}

TEST(ToRpcStatus, FitsIntoTrailers) {
  Fault fault;
  fault.message = std::string(5000, 'm');
  for (uint32_t row = 0; row < 4000; ++row) {
    fault.AddRow(row % 2 ? v1::ERROR_REASON_POSITION_MISMATCH : v1::ERROR_REASON_SEQUENCE_EXPIRED,
                 row, ~0ull);
  }
  const google::rpc::Status status = ToRpcStatus(fault, "i");
  EXPECT_EQ(status.message().size(), 1024u);
  EXPECT_LT(status.message().size() + status.ByteSizeLong() * 4 / 3, 8000u);
  for (const v1::RowErrors& rows : Details<v1::RowErrors>(status)) EXPECT_GE(rows.rows_size(), 100);
}

TEST(ToRpcStatus, CutsNoCharacterOfTheMessage) {
  Fault fault = MakeFault(v1::ERROR_REASON_UNSUPPORTED);
  fault.message = std::string(1023, 'm') + "\xc3\xa9";
  EXPECT_EQ(ToRpcStatus(fault, "i").message(), std::string(1023, 'm'));
}

TEST(ToGrpcStatus, PutsTheStatusIntoTheDetails) {
  Fault fault = MakeFault(v1::ERROR_REASON_STATE_POISONED);
  fault.AddRow(v1::ERROR_REASON_STATE_POISONED, 1);
  const grpc::Status status = ToGrpcStatus(fault, "instance");
  EXPECT_EQ(status.error_code(), grpc::DATA_LOSS);
  EXPECT_EQ(status.error_message(), "A sentence.");
  google::rpc::Status details;
  ASSERT_TRUE(details.ParseFromString(status.error_details()));
  EXPECT_EQ(details.code(), grpc::DATA_LOSS);
  EXPECT_EQ(details.message(), "A sentence.");
  EXPECT_EQ(Details<v1::RowErrors>(details).at(0).rows(0), 1u);
}

}  // namespace
}  // namespace gdn
