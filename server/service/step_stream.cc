#include "server/service/step_stream.h"

#include <utility>

#include "absl/time/clock.h"
#include "server/service/authorize.h"
#include "server/service/call_meter.h"
#include "server/service/message.h"
#include "server/service/step_call.h"
#include "server/wire/status.h"

namespace gdn {

// Every change under the lock, and whatever it makes possible: the next read, or the end.
template <typename Change>
void StepStream::GoOn(const Change& change) {
  {
    const std::lock_guard lock(mutex_);
    change();
    if (MayRead()) {
      reading_ = true;
      StartRead(&request_);
    }
    if (finished_ || !IsOver()) return;
    finished_ = true;
  }
  metrics_.of(Method::kStream).ended[end_.error_code()].Add();
  metrics_.open_streams.Subtract();
  // Outside the lock: this object may be gone before Finish returns.
  Finish(end_);
}

StepStream::StepStream(const Readiness& readiness, const grpc::CallbackServerContext& context)
    : readiness_(readiness), metrics_(*readiness.metrics), deadline_(DeadlineOf(context)) {
  metrics_.open_streams.Add();
  const Fault denied = Authorize(readiness, context, NameOf(Method::kStream));
  if (!denied.ok()) End(denied);
  GoOn([] {});
}

void StepStream::OnReadDone(bool ok) {
  bool handle;
  {
    const std::lock_guard lock(mutex_);
    reading_ = false;
    // A message may still arrive once a cancelled stream was finished. Its step would outlive us.
    handle = handling_ = ok && !finished_;
    no_more_reads_ = no_more_reads_ || !ok;
  }
  if (handle) Handle();
  GoOn([this] { handling_ = false; });
}

void StepStream::Handle() {
  const Hosted* hosted = readiness_.hosted;
  if (hosted == nullptr) return End(NotReady());
  metrics_.of(Method::kStream).received_bytes.Add(request_.Length());
  std::shared_ptr<ReceivedMessage> bytes = Receive(request_);
  StreamStep message;
  if (bytes == nullptr || !ParseStreamRequest(bytes->pieces, &message)) {
    return End(MalformedMessage());
  }
  if (!message.has_step) {
    return End(FaultOf(v1::ERROR_REASON_MALFORMED_BATCH, "a message of the stream has no step"));
  }

  std::shared_ptr<Step> step;
  const uint64_t tag = message.tag;
  const Fault fault = MakeStep(*hosted, message.kind, std::move(message.request), std::move(bytes),
                               deadline_, &step);
  if (!fault.ok()) return Answered(tag, nullptr, fault, {});
  step->in_order = true;
  step->done = [this, tag, weak = std::weak_ptr<Step>(step)](const Fault& why,
                                                             const StepAnswer& answer) {
    Answered(tag, weak.lock(), why, answer);
  };
  {
    const std::lock_guard lock(mutex_);
    step->cancelled = broken_;
    under_way_.insert(step);
    bytes_ += step->request.input_bytes();
  }
  hosted->engine->Submit(step, absl::Now());
}

void StepStream::Answered(uint64_t tag, const std::shared_ptr<Step>& step, const Fault& fault,
                          const StepAnswer& answer) {
  grpc::ByteBuffer message =
      fault.ok()
          ? ToByteBuffer(EncodeStreamAnswerHeader(tag, step->kind, answer), answer.output)
          : ToByteBuffer(EncodeStreamStatus(tag, ToRpcStatus(fault, readiness_.instance_id)));
  CountError(fault, &metrics_);
  metrics_.of(Method::kStream).sent_bytes.Add(message.Length());
  GoOn([&] {
    if (under_way_.erase(step) > 0) bytes_ -= step->request.input_bytes();
    if (!broken_) Send(message);
  });
}

void StepStream::End(const Fault& fault) {
  CountError(fault, &metrics_);
  const std::lock_guard lock(mutex_);
  no_more_reads_ = true;
  end_ = ToGrpcStatus(fault, readiness_.instance_id);
}

void StepStream::Send(const grpc::ByteBuffer& message) {
  answers_.push_back(message);
  bytes_ += message.Length();
  if (answers_.size() == 1) StartWrite(&answers_.front());
}

void StepStream::Sent() {
  bytes_ -= answers_.front().Length();
  answers_.pop_front();
}

void StepStream::OnWriteDone(bool ok) {
  GoOn([&] {
    Sent();
    broken_ = broken_ || !ok;
    while (!ok && !answers_.empty()) Sent();
    if (!answers_.empty()) StartWrite(&answers_.front());
  });
}

void StepStream::OnCancel() {
  GoOn([&] {
    broken_ = true;
    no_more_reads_ = true;
    for (const std::shared_ptr<Step>& step : under_way_) step->cancelled = true;
  });
}

bool StepStream::MayRead() const {
  const Hosted* hosted = readiness_.hosted;
  return !reading_ && !handling_ && !no_more_reads_ &&
         under_way_.size() + answers_.size() < kMostUnderWay &&
         (hosted == nullptr || bytes_ < hosted->max_stream_bytes);
}

// The stream is over once nothing more is read and everything that was read is answered. Steps call
// back into this object, so it stays until the last one is done.
bool StepStream::IsOver() const {
  return no_more_reads_ && !handling_ && under_way_.empty() && answers_.empty();
}

}  // namespace gdn
