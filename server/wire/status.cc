#include "server/wire/status.h"

#include <algorithm>
#include <vector>

#include "google/rpc/error_details.pb.h"
#include "server/wire/utf8.h"

namespace gdn {
namespace {

constexpr std::string_view kDomain = "gdn.v1";
constexpr std::string_view kReasonPrefix = "ERROR_REASON_";
constexpr size_t kMaxMessage = 1024;
constexpr size_t kMaxRows = 512;
// gRPC takes 8 KiB of trailers: the message, and this in base64. Over it, a client would see
// another error than the one that was sent.
constexpr size_t kMaxStatus = 5000;
constexpr absl::Duration kDefaultRetryDelay = absl::Milliseconds(20);

google::rpc::ErrorInfo MakeErrorInfo(const Fault& fault, std::string_view instance_id) {
  google::rpc::ErrorInfo info;
  info.set_reason(v1::ErrorReason_Name(fault.reason).substr(kReasonPrefix.size()));
  info.set_domain(std::string(kDomain));
  info.mutable_metadata()->insert(fault.metadata.begin(), fault.metadata.end());
  (*info.mutable_metadata())["instance_id"] = std::string(instance_id);
  return info;
}

google::rpc::RetryInfo MakeRetryInfo(absl::Duration delay) {
  google::rpc::RetryInfo info;
  info.mutable_retry_delay()->set_seconds(absl::IDivDuration(delay, absl::Seconds(1), &delay));
  info.mutable_retry_delay()->set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(delay)));
  return info;
}

v1::RowErrors MakeRowErrors(v1::ErrorReason reason, const RowFaults& faults, size_t max_rows) {
  v1::RowErrors errors;
  errors.set_reason(reason);
  const size_t rows = std::min(faults.rows.size(), max_rows);
  errors.mutable_rows()->Add(faults.rows.begin(), faults.rows.begin() + rows);
  const size_t positions = std::min(faults.positions.size(), rows);
  errors.mutable_positions()->Add(faults.positions.begin(), faults.positions.begin() + positions);
  return errors;
}

void AddDetail(const google::protobuf::Message& detail, google::rpc::Status* status) {
  static_cast<void>(status->add_details()->PackFrom(detail));  // fails for 2 GiB and more
}

google::rpc::Status MakeStatus(const Fault& fault, std::string_view instance_id, size_t max_rows) {
  google::rpc::Status status;
  const grpc::StatusCode code = CodeOf(fault.reason);
  status.set_code(code);
  status.set_message(std::string(Utf8Prefix(fault.message, kMaxMessage)));
  AddDetail(MakeErrorInfo(fault, instance_id), &status);
  const absl::Duration delay = RetryDelayOf(fault);
  if (delay > absl::ZeroDuration()) AddDetail(MakeRetryInfo(delay), &status);
  for (const auto& [reason, faults] : fault.rows) {
    AddDetail(MakeRowErrors(reason, faults, max_rows), &status);
  }
  return status;
}

}  // namespace

grpc::StatusCode CodeOf(v1::ErrorReason reason) {
  switch (reason) {
    case v1::ERROR_REASON_UNSPECIFIED:
      return grpc::OK;
    case v1::ERROR_REASON_MALFORMED_BATCH:
    case v1::ERROR_REASON_MALFORMED_ID:
    case v1::ERROR_REASON_DUPLICATE_ROW:
    case v1::ERROR_REASON_SLOT_OUT_OF_RANGE:
    case v1::ERROR_REASON_BATCH_TOO_LARGE:
    case v1::ERROR_REASON_INPUT_SIZE_MISMATCH:
    case v1::ERROR_REASON_UNSUPPORTED:
    case v1::ERROR_REASON_NON_FINITE_INPUT:
    case v1::ERROR_REASON_STEP_ID_REUSED:
    case v1::ERROR_REASON_MALFORMED_MESSAGE:
      return grpc::INVALID_ARGUMENT;
    case v1::ERROR_REASON_SEQUENCE_NOT_FOUND:
    case v1::ERROR_REASON_SEQUENCE_EXPIRED:
    case v1::ERROR_REASON_CHECKPOINT_NOT_FOUND:
      return grpc::NOT_FOUND;
    case v1::ERROR_REASON_POSITION_MISMATCH:
    case v1::ERROR_REASON_ANSWER_NOT_KEPT:
      return grpc::ABORTED;
    case v1::ERROR_REASON_ID_IN_USE:
      return grpc::ALREADY_EXISTS;
    case v1::ERROR_REASON_SLOTS_EXHAUSTED:
    case v1::ERROR_REASON_QUEUE_FULL:
    case v1::ERROR_REASON_CHECKPOINTS_EXHAUSTED:
      return grpc::RESOURCE_EXHAUSTED;
    case v1::ERROR_REASON_DRAINING:
    case v1::ERROR_REASON_NOT_READY:
      return grpc::UNAVAILABLE;
    case v1::ERROR_REASON_REGION_NOT_FOUND:
    case v1::ERROR_REASON_SYNTHETIC_INPUT_DISABLED:
    case v1::ERROR_REASON_STATE_INCOMPATIBLE:
      return grpc::FAILED_PRECONDITION;
    case v1::ERROR_REASON_TOKEN_INVALID:
      return grpc::UNAUTHENTICATED;
    case v1::ERROR_REASON_METHOD_DENIED:
    case v1::ERROR_REASON_REGION_DENIED:
      return grpc::PERMISSION_DENIED;
    case v1::ERROR_REASON_STATE_POISONED:
    case v1::ERROR_REASON_CHECKSUM_MISMATCH:
      return grpc::DATA_LOSS;
    case v1::ERROR_REASON_DEVICE_ERROR:
      return grpc::INTERNAL;
    default:  // the enum is open; a server sends no other
      return grpc::UNKNOWN;
  }
}

absl::Duration RetryDelayOf(const Fault& fault) {
  if (fault.retry_delay > absl::ZeroDuration()) return fault.retry_delay;
  return CodeOf(fault.reason) == grpc::RESOURCE_EXHAUSTED ? kDefaultRetryDelay
                                                          : absl::ZeroDuration();
}

google::rpc::Status ToRpcStatus(const Fault& fault, std::string_view instance_id) {
  if (fault.ok()) return {};
  size_t max_rows = kMaxRows;
  google::rpc::Status status = MakeStatus(fault, instance_id, max_rows);
  while (status.ByteSizeLong() > kMaxStatus && max_rows > 1) {
    max_rows /= 2;
    status = MakeStatus(fault, instance_id, max_rows);
  }
  return status;
}

grpc::Status ToGrpcStatus(const Fault& fault, std::string_view instance_id) {
  if (fault.ok()) return grpc::Status::OK;
  const google::rpc::Status status = ToRpcStatus(fault, instance_id);
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), status.message(),
                      status.SerializeAsString());
}

}  // namespace gdn
