// From a fault to what the wire carries: code, ErrorInfo, RowErrors, RetryInfo.
#pragma once

#include <string_view>

#include "google/rpc/status.pb.h"
#include "grpcpp/support/status.h"
#include "server/wire/fault.h"

namespace gdn {

// The code that a reason has, by the table at gdn.v1.ErrorReason.
grpc::StatusCode CodeOf(v1::ErrorReason reason);

// When to try again: what the fault says, and with every RESOURCE_EXHAUSTED something; or zero.
absl::Duration RetryDelayOf(const Fault& fault);

// Details: ErrorInfo {reason without its prefix, domain "gdn.v1", metadata + instance_id};
// RetryInfo with every RetryDelayOf; one RowErrors a reason, the first 512 rows of each.
google::rpc::Status ToRpcStatus(const Fault& fault, std::string_view instance_id);

// The same as a gRPC status (details in the grpc-status-details-bin trailer).
grpc::Status ToGrpcStatus(const Fault& fault, std::string_view instance_id);

}  // namespace gdn
