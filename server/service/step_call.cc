#include "server/service/step_call.h"

#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/service/shared_memory/place_step.h"
#include "server/wire/status.h"
#include "server/wire/validate_step.h"

namespace gdn {

absl::Time DeadlineOf(const grpc::CallbackServerContext& context) {
  const auto deadline = context.deadline();
  if (deadline == std::chrono::system_clock::time_point::max()) return absl::InfiniteFuture();
  return absl::FromChrono(deadline);
}

void PushBack(const Fault& fault, grpc::CallbackServerContext* context) {
  const absl::Duration delay = RetryDelayOf(fault);
  if (delay <= absl::ZeroDuration()) return;
  context->AddTrailingMetadata("grpc-retry-pushback-ms",
                               absl::StrCat(absl::ToInt64Milliseconds(delay)));
}

Fault NotReady() {
  Fault fault = FaultOf(v1::ERROR_REASON_NOT_READY, "the server is still loading");
  fault.retry_delay = absl::Seconds(1);
  return fault;
}

Fault MalformedMessage() {
  return FaultOf(v1::ERROR_REASON_MALFORMED_MESSAGE, "the message does not parse");
}

Fault MakeStep(const Hosted& hosted, StepKind kind, StepRequest request,
               std::shared_ptr<ReceivedMessage> message, absl::Time deadline,
               std::shared_ptr<Step>* step) {
  Fault fault = ValidateStep(request, kind, hosted.limits);
  if (!fault.ok()) return fault;
  if (request.input_layout == v1::INPUT_LAYOUT_UNSPECIFIED) {
    request.input_layout = v1::INPUT_LAYOUT_HIDDEN;
  }
  *step = std::make_shared<Step>();
  (*step)->kind = kind;
  (*step)->request = std::move(request);
  (*step)->message = std::move(message);
  (*step)->allocate = [&hosted](size_t bytes) { return AllocateOutput(hosted.output_pool, bytes); };
  (*step)->deadline = deadline;
  if ((*step)->request.shared_memory) {
    return PlaceStep(*hosted.regions, hosted.limits, step->get());
  }
  // By the thread that received the input, whose cache has it; not for a step that is refused.
  if (hosted.engine->HasRoom(**step)) {
    GatherInput(hosted.input_pool, hosted.engine->TypeToCheck(**step), &hosted.engine->hand(),
                step->get());
  }
  return {};
}

}  // namespace gdn
