// One call as the metrics see it: from the moment it came to the status that ends it.
#pragma once

#include "absl/time/time.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/status.h"
#include "server/metrics/metrics.h"
#include "server/service/hosted.h"
#include "server/wire/fault.h"

namespace gdn {

// A unary call. A value: it may be copied, but one copy alone is to see the end.
class CallMeter {
 public:
  // The call has come.
  CallMeter(const Readiness& readiness, Method method, const grpc::ByteBuffer& request);
  // The call ends with `fault`: the status that says so. `response` counts where there is none.
  grpc::Status End(const Fault& fault, const grpc::ByteBuffer& response) const;

 private:
  const Readiness* readiness_;
  Method method_;
  absl::Time came_;
};

// A fault that is told to a caller.
void CountError(const Fault& fault, Metrics* metrics);

}  // namespace gdn
