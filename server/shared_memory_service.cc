#include "server/shared_memory_service.h"

#include "server/call_meter.h"
#include "server/message.h"
#include "server/shared_memory/ring_call.h"
#include "server/step_call.h"

namespace gdn {
namespace {

// Parses the request, where the server is ready for it.
template <typename Request>
Fault Begin(const Readiness& readiness, const grpc::ByteBuffer& bytes, Request* request) {
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
  Fault fault = Begin(readiness_, *request, &parsed);
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
  Fault fault = Begin(readiness_, *request, &parsed);
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
  const Fault fault = Begin(readiness_, *request, &parsed);
  return new RingCall(readiness_, fault, parsed.ring(), *context);
}

}  // namespace gdn
