#include "server/service/unary_step.h"

#include <utility>

#include "absl/time/clock.h"
#include "server/service/authorize.h"
#include "server/service/message.h"
#include "server/service/step_call.h"
#include "server/wire/codec.h"

namespace gdn {
namespace {

Method MethodOf(StepKind kind) {
  return kind == StepKind::kPrefill ? Method::kPrefill : Method::kDecode;
}

}  // namespace

UnaryStep::UnaryStep(const Readiness& readiness, StepKind kind,
                     grpc::CallbackServerContext* context, const grpc::ByteBuffer& request,
                     grpc::ByteBuffer* response)
    : meter_(readiness, MethodOf(kind), request), context_(context), response_(response) {
  const Hosted* hosted = readiness.hosted;
  const Fault fault = Begin(readiness, hosted, kind, request);
  // The reactor may be gone as soon as it is finished or its step handed in.
  if (fault.ok()) {
    outbox_ = hosted->engine->outbox();
    hosted->engine->Submit(step_, absl::Now());
  } else {
    Finished(fault, {});
  }
}

Fault UnaryStep::Begin(const Readiness& readiness, const Hosted* hosted, StepKind kind,
                       const grpc::ByteBuffer& request) {
  Fault denied = Authorize(readiness, *context_, NameOf(MethodOf(kind)));
  if (!denied.ok()) return denied;
  if (hosted == nullptr) return NotReady();
  std::shared_ptr<ReceivedMessage> message = Receive(request);
  StepRequest parsed;
  if (message == nullptr || !ParseStepRequest(message->pieces, &parsed)) return MalformedMessage();
  Fault fault =
      MakeStep(*hosted, kind, std::move(parsed), std::move(message), DeadlineOf(*context_), &step_);
  if (fault.ok()) {
    step_->done = [this](const Fault& why, const StepAnswer& answer) { Finished(why, answer); };
    // Threads on both sides have slept since the request, and wake up late: now rather than at the
    // answer. What ends such a call other than well is nothing that gRPC would retry.
    step_->begun = [this] { StartSendInitialMetadata(); };
  }
  return fault;
}

void UnaryStep::Finished(const Fault& fault, const StepAnswer& answer) {
  if (fault.ok()) {
    *response_ = ToByteBuffer(EncodeAnswerHeader(answer), answer.output);
  } else {
    PushBack(fault, context_);
  }
  Finish(meter_.End(fault, *response_));
}

void UnaryStep::OnDone() {
  const std::shared_ptr<Outbox> outbox = std::move(outbox_);
  delete this;
  if (outbox != nullptr) outbox->SendOne();
}

void UnaryStep::OnCancel() {
  if (step_ != nullptr) step_->cancelled = true;
}

}  // namespace gdn
