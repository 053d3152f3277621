#include "server/service/shared_memory_service.h"

#include "server/service/authorize.h"
#include "server/service/call_meter.h"
#include "server/service/message.h"
#include "server/service/shared_memory/ring_call.h"
#include "server/service/step_call.h"

namespace gdn {
namespace {

// Lets in who may call `method` and parses the request, where the server is ready for it.
template <typename Request>
Fault Begin(const Readiness& readiness, Method method, const grpc::CallbackServerContext& context,
            const grpc::ByteBuffer& bytes, Request* request) {
  Fault denied = Authorize(readiness, context, NameOf(method));
  if (!denied.ok()) return denied;
  if (!Parse(bytes, request)) return MalformedMessage();
  return readiness.hosted == nullptr ? NotReady() : Fault();
}

}  // namespace

grpc::ServerUnaryReactor* SharedMemoryService::RegisterSharedMemory(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const CallMeter meter(readiness_, Method::kRegisterSharedMemory, *request);
  v1::RegisterSharedMemoryRequest parsed;
  Fault fault = Begin(readiness_, Method::kRegisterSharedMemory, *context, *request, &parsed);
  if (fault.ok()) fault = readiness_.hosted.load()->regions->Register(parsed);
  *response = Serialize(v1::RegisterSharedMemoryResponse());
  reactor->Finish(meter.End(fault, *response));
  return reactor;
}

grpc::ServerUnaryReactor* SharedMemoryService::UnregisterSharedMemory(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const CallMeter meter(readiness_, Method::kUnregisterSharedMemory, *request);
  v1::UnregisterSharedMemoryRequest parsed;
  *response = Serialize(v1::UnregisterSharedMemoryResponse());
  Fault fault = Begin(readiness_, Method::kUnregisterSharedMemory, *context, *request, &parsed);
  if (fault.ok()) {
    fault = readiness_.hosted.load()->regions->Unregister(
        parsed.region(), [reactor, meter, response] { reactor->Finish(meter.End({}, *response)); });
  }
  if (!fault.ok()) reactor->Finish(meter.End(fault, *response));
  return reactor;
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* SharedMemoryService::ServeRing(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request) {
  v1::ServeRingRequest parsed;
  const Fault fault = Begin(readiness_, Method::kServeRing, *context, *request, &parsed);
  return new RingCall(readiness_, fault, parsed.ring(), *context);
}

}  // namespace gdn
