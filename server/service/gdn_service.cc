#include "server/service/gdn_service.h"

#include "server/service/authorize.h"
#include "server/service/call_meter.h"
#include "server/service/message.h"
#include "server/service/step_call.h"
#include "server/service/step_stream.h"
#include "server/service/unary_step.h"

namespace gdn {

grpc::ServerUnaryReactor* GdnService::GetServerInfo(grpc::CallbackServerContext* context,
                                                    const grpc::ByteBuffer* request,
                                                    grpc::ByteBuffer* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const CallMeter meter(readiness_, Method::kGetServerInfo, *request);
  const Hosted* hosted = readiness_.hosted;
  const Fault denied = Authorize(readiness_, *context, NameOf(Method::kGetServerInfo));
  v1::GetServerInfoRequest parsed;
  if (!denied.ok()) {
    reactor->Finish(meter.End(denied, *response));
  } else if (!Parse(*request, &parsed)) {
    reactor->Finish(meter.End(MalformedMessage(), *response));
  } else if (hosted == nullptr) {
    reactor->Finish(meter.End(NotReady(), *response));
  } else {
    v1::GetServerInfoResponse info = hosted->info;
    info.set_slots_used(static_cast<uint32_t>(hosted->engine->slots_used()));
    *response = Serialize(info);
    reactor->Finish(meter.End({}, *response));
  }
  return reactor;
}

grpc::ServerUnaryReactor* GdnService::Prefill(grpc::CallbackServerContext* context,
                                              const grpc::ByteBuffer* request,
                                              grpc::ByteBuffer* response) {
  return new UnaryStep(readiness_, StepKind::kPrefill, context, *request, response);
}

grpc::ServerUnaryReactor* GdnService::Decode(grpc::CallbackServerContext* context,
                                             const grpc::ByteBuffer* request,
                                             grpc::ByteBuffer* response) {
  return new UnaryStep(readiness_, StepKind::kDecode, context, *request, response);
}

grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* GdnService::Stream(
    grpc::CallbackServerContext* context) {
  return new StepStream(readiness_, *context);
}

}  // namespace gdn
