// What a call's status says, typed.
#pragma once

#include <chrono>
#include <map>
#include <string>
#include <vector>

#include "gdn/v1/errors.pb.h"
#include "google/rpc/status.pb.h"
#include "grpcpp/support/status.h"

namespace gdn::client {

struct Error {
  grpc::StatusCode code = grpc::OK;
  std::string message;
  // UNSPECIFIED: gRPC itself made the status (connection lost, deadline, message over the limit).
  v1::ErrorReason reason = v1::ERROR_REASON_UNSPECIFIED;
  std::map<std::string, std::string> metadata;  // instance_id, and what the reason says
  std::chrono::nanoseconds retry_delay{0};      // 0: none was told
  std::vector<v1::RowErrors> rows;              // one for each reason that names rows

  bool ok() const { return code == grpc::OK; }
};

// The code's name in gRPC, "NOT_FOUND"; a number that has none as it is.
std::string CodeName(grpc::StatusCode code);

// The reason's name without its prefix, "SEQUENCE_EXPIRED".
std::string ReasonName(v1::ErrorReason reason);

// "NOT_FOUND SEQUENCE_EXPIRED: The message. (instance_id=…) rows 1, 2", or "OK".
std::string ToString(const Error& error);

// Of a unary call or a stream's end, and of a StreamResponse.
Error DecodeError(const grpc::Status& status);
Error DecodeError(const google::rpc::Status& status);

}  // namespace gdn::client
