#include "server/service/sequence_service.h"

#include <memory>
#include <utility>

#include "absl/time/clock.h"
#include "server/service/authorize.h"
#include "server/service/call_meter.h"
#include "server/service/message.h"
#include "server/service/sequences.h"
#include "server/service/step_call.h"

namespace gdn {
namespace {

// Lets in who may call `method`, parses and checks the request, lets it wait in the engine's queue,
// runs it there and answers.
template <typename Request, typename Response>
grpc::ServerUnaryReactor* Answer(const Readiness& readiness, Method method,
                                 grpc::CallbackServerContext* context,
                                 const grpc::ByteBuffer& bytes, grpc::ByteBuffer* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const CallMeter meter(readiness, method, bytes);
  const auto finish = [reactor, meter, response](const Fault& fault) {
    reactor->Finish(meter.End(fault, *response));
    return reactor;
  };
  const Fault denied = Authorize(readiness, *context, NameOf(method));
  if (!denied.ok()) return finish(denied);
  const Hosted* hosted = readiness.hosted;
  auto request = std::make_shared<Request>();
  if (!Parse(bytes, request.get())) return finish(MalformedMessage());
  if (hosted == nullptr) return finish(NotReady());
  const Fault refused = Validate(*request, hosted->rules);
  if (!refused.ok()) return finish(refused);

  Call call = PlaceOf(*request);
  call.run = [=](absl::Time now) {
    Response message;
    const Fault fault = Execute(*request, hosted->rules, hosted->engine, now, &message);
    *response = Serialize(message);
    finish(fault);
  };
  return hosted->engine->Submit(std::move(call), absl::Now()) ? reactor : finish(Draining());
}

}  // namespace

grpc::ServerUnaryReactor* SequenceService::GetSequence(grpc::CallbackServerContext* context,
                                                       const grpc::ByteBuffer* request,
                                                       grpc::ByteBuffer* response) {
  return Answer<v1::GetSequenceRequest, v1::GetSequenceResponse>(readiness_, Method::kGetSequence,
                                                                 context, *request, response);
}

grpc::ServerUnaryReactor* SequenceService::ListSequences(grpc::CallbackServerContext* context,
                                                         const grpc::ByteBuffer* request,
                                                         grpc::ByteBuffer* response) {
  return Answer<v1::ListSequencesRequest, v1::ListSequencesResponse>(
      readiness_, Method::kListSequences, context, *request, response);
}

grpc::ServerUnaryReactor* SequenceService::ReleaseSequences(grpc::CallbackServerContext* context,
                                                            const grpc::ByteBuffer* request,
                                                            grpc::ByteBuffer* response) {
  return Answer<v1::ReleaseSequencesRequest, v1::ReleaseSequencesResponse>(
      readiness_, Method::kReleaseSequences, context, *request, response);
}

grpc::ServerUnaryReactor* SequenceService::RenewSequences(grpc::CallbackServerContext* context,
                                                          const grpc::ByteBuffer* request,
                                                          grpc::ByteBuffer* response) {
  return Answer<v1::RenewSequencesRequest, v1::RenewSequencesResponse>(
      readiness_, Method::kRenewSequences, context, *request, response);
}

}  // namespace gdn
