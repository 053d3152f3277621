// From a parsed request to a step in the engine's queue: shared by the unary calls and the stream.
#pragma once

#include <memory>

#include "absl/time/time.h"
#include "grpcpp/server_context.h"
#include "server/service/hosted.h"
#include "server/service/message.h"
#include "server/wire/step.h"

namespace gdn {

// The moment at which the caller stops to wait.
absl::Time DeadlineOf(const grpc::CallbackServerContext& context);

// Says in a trailer, where gRPC's own retries look, when to come again after this fault.
void PushBack(const Fault& fault, grpc::CallbackServerContext* context);

Fault NotReady();
Fault MalformedMessage();

// Makes the step of a request, or says why it is refused on arrival.
Fault MakeStep(const Hosted& hosted, StepKind kind, StepRequest request,
               std::shared_ptr<ReceivedMessage> message, absl::Time deadline,
               std::shared_ptr<Step>* step);

}  // namespace gdn
