// A Prefill or Decode call: answered when its step is done.
#pragma once

#include <memory>

#include "grpcpp/server_context.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "server/engine/outbox.h"
#include "server/service/call_meter.h"
#include "server/service/hosted.h"
#include "server/wire/step.h"

namespace gdn {

class UnaryStep : public grpc::ServerUnaryReactor {
 public:
  UnaryStep(const Readiness& readiness, StepKind kind, grpc::CallbackServerContext* context,
            const grpc::ByteBuffer& request, grpc::ByteBuffer* response);

 private:
  Fault Begin(const Readiness& readiness, const Hosted* hosted, StepKind kind,
              const grpc::ByteBuffer& request);
  void Finished(const Fault& fault, const StepAnswer& answer);
  void OnCancel() override;
  // On the thread of gRPC's that was woken to hear that the answer has gone. It sends another one:
  // each that the engine's thread sends wakes one of gRPC's, one that gRPC's sends wakes nobody.
  void OnDone() override;
  // What happens here takes little time, so no other thread of gRPC's need be woken for it.
  bool InternalInlineable() override { return true; }

  const CallMeter meter_;
  grpc::CallbackServerContext* const context_;
  grpc::ByteBuffer* const response_;
  std::shared_ptr<Step> step_;
  std::shared_ptr<Outbox> outbox_;  // null where the step is refused
};

}  // namespace gdn
