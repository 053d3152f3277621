#include "client/cpp/error.h"

#include "google/rpc/error_details.pb.h"

namespace gdn::client {
namespace {

constexpr std::string_view kReasonPrefix = "ERROR_REASON_";

void AddDetail(const google::protobuf::Any& any, Error* error) {
  google::rpc::ErrorInfo info;
  google::rpc::RetryInfo retry;
  v1::RowErrors rows;
  if (any.UnpackTo(&info)) {
    // A newer server's reason leaves it unspecified.
    static_cast<void>(
        v1::ErrorReason_Parse(std::string(kReasonPrefix) + info.reason(), &error->reason));
    error->metadata = {info.metadata().begin(), info.metadata().end()};
  } else if (any.UnpackTo(&retry)) {
    error->retry_delay = std::chrono::seconds(retry.retry_delay().seconds()) +
                         std::chrono::nanoseconds(retry.retry_delay().nanos());
  } else if (any.UnpackTo(&rows)) {
    error->rows.push_back(std::move(rows));
  }
}

template <typename List, typename Format>
std::string Join(const List& list, Format format) {
  std::string joined;
  for (const auto& element : list) joined += (joined.empty() ? "" : ", ") + format(element);
  return joined;
}

}  // namespace

std::string CodeName(grpc::StatusCode code) {
  static constexpr const char* kNames[] = {"OK",
                                           "CANCELLED",
                                           "UNKNOWN",
                                           "INVALID_ARGUMENT",
                                           "DEADLINE_EXCEEDED",
                                           "NOT_FOUND",
                                           "ALREADY_EXISTS",
                                           "PERMISSION_DENIED",
                                           "RESOURCE_EXHAUSTED",
                                           "FAILED_PRECONDITION",
                                           "ABORTED",
                                           "OUT_OF_RANGE",
                                           "UNIMPLEMENTED",
                                           "INTERNAL",
                                           "UNAVAILABLE",
                                           "DATA_LOSS",
                                           "UNAUTHENTICATED"};
  const bool named = code >= 0 && static_cast<size_t>(code) < std::size(kNames);
  return named ? kNames[code] : std::to_string(code);
}

std::string ReasonName(v1::ErrorReason reason) {
  return v1::ErrorReason_Name(reason).substr(kReasonPrefix.size());
}

std::string ToString(const Error& error) {
  std::string text = CodeName(error.code);
  if (error.ok()) return text;
  if (error.reason != v1::ERROR_REASON_UNSPECIFIED) text += " " + ReasonName(error.reason);
  text += ": " + error.message;
  if (!error.metadata.empty()) {
    text +=
        " (" + Join(error.metadata, [](const auto& m) { return m.first + "=" + m.second; }) + ")";
  }
  for (const v1::RowErrors& rows : error.rows) {
    text += "; " + ReasonName(rows.reason()) + " in rows " +
            Join(rows.rows(), [](uint32_t row) { return std::to_string(row); });
  }
  return text;
}

Error DecodeError(const grpc::Status& status) {
  google::rpc::Status details;
  // Empty, or another's: no details.
  if (!details.ParseFromString(status.error_details())) details.Clear();
  Error error = DecodeError(details);
  error.code = status.error_code();
  error.message = status.error_message();
  return error;
}

Error DecodeError(const google::rpc::Status& status) {
  Error error;
  error.code = static_cast<grpc::StatusCode>(status.code());
  error.message = status.message();
  for (const google::protobuf::Any& any : status.details()) AddDetail(any, &error);
  return error;
}

}  // namespace gdn::client
