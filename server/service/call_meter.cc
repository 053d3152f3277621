#include "server/service/call_meter.h"

#include "absl/time/clock.h"
#include "server/metrics/elapsed.h"
#include "server/wire/status.h"

namespace gdn {

CallMeter::CallMeter(const Readiness& readiness, Method method, const grpc::ByteBuffer& request)
    : readiness_(&readiness), method_(method), came_(absl::Now()) {
  readiness.metrics->of(method).received_bytes.Add(request.Length());
}

grpc::Status CallMeter::End(const Fault& fault, const grpc::ByteBuffer& response) const {
  CountError(fault, readiness_->metrics.get());
  CallNumbers& call = readiness_->metrics->of(method_);
  call.ended[CodeOf(fault.reason)].Add();
  call.duration.Observe(NanosecondsBetween(came_, absl::Now()));
  if (fault.ok()) call.sent_bytes.Add(response.Length());
  return ToGrpcStatus(fault, readiness_->instance_id);
}

void CountError(const Fault& fault, Metrics* metrics) {
  if (!fault.ok()) metrics->errors[fault.reason].Add();
}

}  // namespace gdn
