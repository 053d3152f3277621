#include "server/service/sequence_service.h"

#include <memory>

#include "absl/time/clock.h"
#include "server/service/authorize.h"
#include "server/service/call_meter.h"
#include "server/service/message.h"
#include "server/service/sequences.h"
#include "server/service/step_call.h"

namespace gdn {
namespace {

// One call: lets in who may make it, parses and checks the request, lets it wait in the engine's
// queue, runs it there and answers.
template <typename Request, typename Response>
class SequenceCall final : public grpc::ServerUnaryReactor {
 public:
  SequenceCall(const Readiness& readiness, Method method, grpc::CallbackServerContext* context,
               const grpc::ByteBuffer& request, grpc::ByteBuffer* response)
      : meter_(readiness, method, request), context_(context), response_(response) {
    const Hosted* hosted = readiness.hosted;
    Fault fault = Authorize(readiness, *context, NameOf(method));
    if (fault.ok()) fault = Begin(hosted, request);
    // This may be gone as soon as it is finished or its call handed in.
    if (fault.ok()) {
      hosted->engine->Submit(call_, absl::Now());
    } else {
      Finished(fault);
    }
  }

 private:
  Fault Begin(const Hosted* hosted, const grpc::ByteBuffer& bytes) {
    if (!Parse(bytes, &request_)) return MalformedMessage();
    if (hosted == nullptr) return NotReady();
    Fault fault = Validate(request_, hosted->rules);
    if (!fault.ok()) return fault;
    call_ = std::make_shared<Call>();
    call_->place = PlaceOf(request_);
    call_->bytes = bytes.Length();
    call_->deadline = DeadlineOf(*context_);
    call_->run = [this, hosted](absl::Time now) {
      Response message;
      const Fault why = Execute(request_, hosted->rules, hosted->engine, now, &message);
      *response_ = Serialize(message);
      Finished(why);
    };
    call_->refuse = [this](const Fault& why) { Finished(why); };
    return {};
  }
  void Finished(const Fault& fault) {
    PushBack(fault, context_);
    Finish(meter_.End(fault, *response_));
  }
  void OnCancel() override {
    if (call_ != nullptr) call_->cancelled = true;
  }
  void OnDone() override { delete this; }

  const CallMeter meter_;
  grpc::CallbackServerContext* const context_;
  grpc::ByteBuffer* const response_;
  Request request_;
  std::shared_ptr<Call> call_;
};

}  // namespace

grpc::ServerUnaryReactor* SequenceService::GetSequence(grpc::CallbackServerContext* context,
                                                       const grpc::ByteBuffer* request,
                                                       grpc::ByteBuffer* response) {
  return new SequenceCall<v1::GetSequenceRequest, v1::GetSequenceResponse>(
      readiness_, Method::kGetSequence, context, *request, response);
}

grpc::ServerUnaryReactor* SequenceService::ListSequences(grpc::CallbackServerContext* context,
                                                         const grpc::ByteBuffer* request,
                                                         grpc::ByteBuffer* response) {
  return new SequenceCall<v1::ListSequencesRequest, v1::ListSequencesResponse>(
      readiness_, Method::kListSequences, context, *request, response);
}

grpc::ServerUnaryReactor* SequenceService::ReleaseSequences(grpc::CallbackServerContext* context,
                                                            const grpc::ByteBuffer* request,
                                                            grpc::ByteBuffer* response) {
  return new SequenceCall<v1::ReleaseSequencesRequest, v1::ReleaseSequencesResponse>(
      readiness_, Method::kReleaseSequences, context, *request, response);
}

grpc::ServerUnaryReactor* SequenceService::RenewSequences(grpc::CallbackServerContext* context,
                                                          const grpc::ByteBuffer* request,
                                                          grpc::ByteBuffer* response) {
  return new SequenceCall<v1::RenewSequencesRequest, v1::RenewSequencesResponse>(
      readiness_, Method::kRenewSequences, context, *request, response);
}

}  // namespace gdn
