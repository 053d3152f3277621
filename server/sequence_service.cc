#include "server/sequence_service.h"

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "server/message.h"
#include "server/sequences.h"
#include "server/status.h"
#include "server/step_call.h"

namespace gdn {
namespace {

// A call on its way through the engine's queue.
struct PendingCall {
  std::vector<std::string> request_ids;  // whose steps it waits for
  bool waits_for_all = false;
  bool holds_up = false;  // steps that come after it wait for it
  // Runs on the engine's thread and fills the response.
  std::function<Fault(const Hosted&, absl::Time now, grpc::ByteBuffer* response)> run;
};

Fault Draining() {
  Fault fault;
  fault.reason = v1::ERROR_REASON_DRAINING;
  fault.message = "the server is shutting down";
  return fault;
}

// Parses, lets `prepare` check the request and say what to run, and answers once that has run.
template <typename Request, typename Prepare>
grpc::ServerUnaryReactor* RunCall(const Readiness& readiness, grpc::CallbackServerContext* context,
                                  const grpc::ByteBuffer& bytes, grpc::ByteBuffer* response,
                                  const Prepare& prepare) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const auto refuse = [&](const Fault& fault) {
    reactor->Finish(ToGrpcStatus(fault, readiness.instance_id));
    return reactor;
  };
  const Hosted* hosted = readiness.hosted;
  auto request = std::make_shared<Request>();
  if (!Parse(bytes, request.get())) return refuse(MalformedMessage());
  if (hosted == nullptr) return refuse(NotReady());
  PendingCall pending;
  if (const Fault fault = prepare(*hosted, request, &pending); !fault.ok()) return refuse(fault);

  Call call = {std::move(pending.request_ids), pending.waits_for_all, pending.holds_up,
               [=, run = std::move(pending.run)](absl::Time now) {
                 const Fault fault = run(*hosted, now, response);
                 reactor->Finish(fault.ok() ? grpc::Status::OK
                                            : ToGrpcStatus(fault, hosted->rules.instance_id));
               }};
  return hosted->engine->Submit(std::move(call), absl::Now()) ? reactor : refuse(Draining());
}

template <typename Ids>
std::vector<std::string> Copy(const Ids& ids) {
  return {ids.begin(), ids.end()};
}

}  // namespace

grpc::ServerUnaryReactor* SequenceService::GetSequence(grpc::CallbackServerContext* context,
                                                       const grpc::ByteBuffer* request,
                                                       grpc::ByteBuffer* response) {
  using Request = std::shared_ptr<v1::GetSequenceRequest>;
  return RunCall<v1::GetSequenceRequest>(
      readiness_, context, *request, response,
      [](const Hosted&, const Request& parsed, PendingCall* call) {
        call->request_ids = {parsed->request_id()};
        call->run = [parsed](const Hosted& hosted, absl::Time, grpc::ByteBuffer* out) {
          v1::GetSequenceResponse message;
          Fault fault = Get(*parsed, hosted.engine, &message);
          *out = Serialize(message);
          return fault;
        };
        return Fault();
      });
}

grpc::ServerUnaryReactor* SequenceService::ListSequences(grpc::CallbackServerContext* context,
                                                         const grpc::ByteBuffer* request,
                                                         grpc::ByteBuffer* response) {
  using Request = std::shared_ptr<v1::ListSequencesRequest>;
  return RunCall<v1::ListSequencesRequest>(
      readiness_, context, *request, response,
      [](const Hosted& at, const Request& parsed, PendingCall* call) {
        call->waits_for_all = true;
        call->run = [parsed](const Hosted& hosted, absl::Time, grpc::ByteBuffer* out) {
          v1::ListSequencesResponse message;
          Fault fault = List(*parsed, hosted.rules, hosted.engine, &message);
          *out = Serialize(message);
          return fault;
        };
        return Validate(*parsed, at.rules);
      });
}

grpc::ServerUnaryReactor* SequenceService::ReleaseSequences(grpc::CallbackServerContext* context,
                                                            const grpc::ByteBuffer* request,
                                                            grpc::ByteBuffer* response) {
  using Request = std::shared_ptr<v1::ReleaseSequencesRequest>;
  return RunCall<v1::ReleaseSequencesRequest>(
      readiness_, context, *request, response,
      [](const Hosted&, const Request& parsed, PendingCall* call) {
        call->request_ids = Copy(parsed->request_ids());
        call->holds_up = true;
        call->run = [parsed](const Hosted& hosted, absl::Time, grpc::ByteBuffer* out) {
          *out = Serialize(v1::ReleaseSequencesResponse());
          return Release(*parsed, hosted.engine);
        };
        return Validate(*parsed);
      });
}

grpc::ServerUnaryReactor* SequenceService::RenewSequences(grpc::CallbackServerContext* context,
                                                          const grpc::ByteBuffer* request,
                                                          grpc::ByteBuffer* response) {
  using Request = std::shared_ptr<v1::RenewSequencesRequest>;
  return RunCall<v1::RenewSequencesRequest>(
      readiness_, context, *request, response,
      [](const Hosted& at, const Request& parsed, PendingCall* call) {
        call->request_ids = Copy(parsed->request_ids());
        call->run = [parsed](const Hosted& hosted, absl::Time now, grpc::ByteBuffer* out) {
          v1::RenewSequencesResponse message;
          Fault fault = Renew(*parsed, hosted.rules, hosted.engine, now, &message);
          *out = Serialize(message);
          return fault;
        };
        return Validate(*parsed, at.rules);
      });
}

}  // namespace gdn
