#include "server/service/shared_memory/ring_call.h"

#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/engine/spin.h"
#include "server/service/call_meter.h"
#include "server/service/message.h"
#include "server/service/step_call.h"
#include "server/wire/codec.h"
#include "server/wire/status.h"

namespace gdn {
namespace {

constexpr uint64_t kLeastQueue = uint64_t{4} << 10;
constexpr uint64_t kLargestQueue = uint64_t{64} << 20;
// A sleeping ring looks this often whether its region is still there.
constexpr std::chrono::milliseconds kLongestSleep{1000};

// Enough for a status, and for slots and epochs of the largest batch.
uint64_t LargestAnswer(const StepLimits& limits) {
  return (uint64_t{16} << 10) + uint64_t{16} * limits.max_rows;
}

bool IsQueueSize(uint64_t size) {
  return size >= kLeastQueue && size <= kLargestQueue && (size & (size - 1)) == 0;
}

Fault CheckRing(const v1::Ring& ring, const Region& region, const StepLimits& limits) {
  if (region.host() == nullptr || ring.offset() % alignof(RingWords) != 0 ||
      !IsQueueSize(ring.request_bytes()) || !IsQueueSize(ring.response_bytes())) {
    return FaultOf(v1::ERROR_REASON_UNSUPPORTED,
                   "A ring lies in host memory at a multiple of 64, and its queues are powers of "
                   "two from 4 KiB to 64 MiB.");
  }
  const uint64_t present = region.present();
  const uint64_t size = kRingWordsBytes + ring.request_bytes() + ring.response_bytes();
  if (ring.offset() > present || size > present - ring.offset()) {
    return FaultOf(v1::ERROR_REASON_INPUT_SIZE_MISMATCH,
                   absl::StrCat("The ring of ", size, " bytes at ", ring.offset(),
                                " leaves its region, of which there are ", present, " bytes."));
  }
  if (ring.response_bytes() < LargestAnswer(limits)) {
    return FaultOf(v1::ERROR_REASON_INPUT_SIZE_MISMATCH,
                   absl::StrCat("An answer may take ", LargestAnswer(limits),
                                " bytes, the queue of responses has ", ring.response_bytes(), "."));
  }
  return {};
}

}  // namespace

RingCall::RingCall(const Readiness& readiness, const Fault& fault, const v1::Ring& ring,
                   const grpc::CallbackServerContext& context)
    : readiness_(readiness),
      metrics_(*readiness.metrics),
      deadline_(DeadlineOf(context)),
      first_(Serialize(v1::ServeRingResponse())) {
  const Fault why = fault.ok() ? Open(*readiness.hosted.load(), ring) : fault;
  if (!why.ok()) {
    CountError(why, &metrics_);
    FinishWith(ToGrpcStatus(why, readiness.instance_id));
    return;
  }
  writing_ = true;
  StartWrite(&first_);
  std::thread([this] { Serve(); }).detach();  // it ends the call, which ends this object
}

Fault RingCall::Open(const Hosted& hosted, const v1::Ring& ring) {
  std::shared_ptr<Region> region = hosted.regions->Find(ring.region());
  if (region == nullptr) {
    return FaultOf(v1::ERROR_REASON_REGION_NOT_FOUND, "No region of this name is registered.");
  }
  Fault fault = CheckRing(ring, *region, hosted.limits);
  if (!fault.ok()) return fault;
  std::byte* begin = region->host() + ring.offset();
  std::byte* queues = begin + kRingWordsBytes;
  auto* words = reinterpret_cast<RingWords*>(begin);
  for (const RingWords::Word* word : {&words->requests_written, &words->requests_read,
                                      &words->responses_written, &words->responses_read}) {
    if (word->value != 0) {
      return FaultOf(v1::ERROR_REASON_UNSUPPORTED,
                     "The ring was served before: its words are not 0.");
    }
  }
  place_.words = words;
  place_.requests.emplace(RingBytes{queues, ring.request_bytes()}, &words->requests_written.value,
                          &words->requests_read.value);
  place_.responses.emplace(RingBytes{queues + ring.request_bytes(), ring.response_bytes()},
                           &words->responses_written.value, &words->responses_read.value);
  place_.region = std::move(region);
  engine_ = hosted.engine;
  return {};
}

void RingCall::Serve() {
  while (!over_) {
    if (Advance()) continue;
    const bool may_take = (Wants() & kToRead) != 0;
    if (may_take && SpinUntil([this] { return over_ || !place_.requests->Empty(); })) continue;
    Sleep();
    if (place_.region->present() < place_.region->size()) {
      Break(FaultOf(v1::ERROR_REASON_INPUT_SIZE_MISMATCH, "The ring's region was truncated."));
    }
  }
  End();
}

bool RingCall::Advance() {
  bool sent;
  {
    const std::lock_guard lock(mutex_);
    sent = SendUnsent();
    if (!MayTake()) return sent;
  }
  return TakeRequest() || sent;
}

bool RingCall::TakeRequest() {
  std::string message;
  switch (place_.requests->Read(&message)) {
    case RingResult::kNotYet:
      return false;
    case RingResult::kBroken:
      Break(FaultOf(v1::ERROR_REASON_MALFORMED_MESSAGE, "The queue of requests is damaged."));
      return true;
    case RingResult::kDone:
      break;
  }
  place_.words->caller.Ring(kToWrite);
  Handle(message);
  return true;
}

void RingCall::Handle(const std::string& message) {
  metrics_.of(Method::kServeRing).received_bytes.Add(message.size());
  StreamStep parsed;
  const std::string_view piece = message;
  if (!ParseStreamRequest({&piece, 1}, &parsed)) return Break(MalformedMessage());
  if (!parsed.has_step) {
    return Break(FaultOf(v1::ERROR_REASON_MALFORMED_BATCH, "A message of the ring has no step."));
  }
  const uint64_t tag = parsed.tag;
  if (!parsed.request.shared_memory) {
    return Answered(
        tag, nullptr,
        FaultOf(v1::ERROR_REASON_UNSUPPORTED, "A step in a ring has its tensors in shared memory."),
        {});
  }
  std::shared_ptr<Step> step;
  const Fault fault = MakeStep(*readiness_.hosted.load(), parsed.kind, std::move(parsed.request),
                               nullptr, deadline_, &step);
  if (!fault.ok()) return Answered(tag, nullptr, fault, {});
  step->in_order = true;
  step->done = [this, tag, weak = std::weak_ptr<Step>(step)](const Fault& why,
                                                             const StepAnswer& answer) {
    Answered(tag, weak.lock(), why, answer);
  };
  {
    const std::lock_guard lock(mutex_);
    step->cancelled = over_.load();
    under_way_.insert(step);
  }
  engine_->Submit(step, absl::Now());
}

void RingCall::Answered(uint64_t tag, const std::shared_ptr<Step>& step, const Fault& fault,
                        const StepAnswer& answer) {
  std::string message = fault.ok()
                            ? EncodeStreamAnswerHeader(tag, step->kind, answer)
                            : EncodeStreamStatus(tag, ToRpcStatus(fault, readiness_.instance_id));
  CountError(fault, &metrics_);
  metrics_.of(Method::kServeRing).sent_bytes.Add(message.size());
  const std::lock_guard lock(mutex_);
  if (!over_) Send(std::move(message));
  // The thread sleeps for the room that this step took; and once it is over, for its end.
  const bool full = !MayTake();
  under_way_.erase(step);
  if (full || !unsent_.empty()) place_.words->server.Wake();
  if (over_) changed_.notify_all();
}

void RingCall::Send(std::string message) {
  unsent_.push_back(std::move(message));
  SendUnsent();
}

bool RingCall::SendUnsent() {
  bool sent = false;
  while (!unsent_.empty()) {
    const RingResult result = place_.responses->Write(unsent_.front());
    if (result == RingResult::kNotYet) break;
    if (result == RingResult::kBroken) {
      EndFor(FaultOf(v1::ERROR_REASON_MALFORMED_MESSAGE, "The queue of responses is damaged."));
      return true;
    }
    unsent_.pop_front();
    sent = true;
  }
  if (sent) place_.words->caller.Ring(kToRead);
  return sent;
}

uint32_t RingCall::Wants() {
  const std::lock_guard lock(mutex_);
  return (MayTake() ? kToRead : 0) | (unsent_.empty() ? 0 : kToWrite);
}

void RingCall::Sleep() {
  const uint32_t wants = Wants();
  place_.words->server.Sleep(wants, kLongestSleep, [&] {
    if (over_ || Wants() != wants) return true;
    if ((wants & kToRead) != 0 && !place_.requests->Empty()) return true;
    const std::lock_guard lock(mutex_);
    return !unsent_.empty() && place_.responses->HasRoom(unsent_.front());
  });
}

void RingCall::Break(const Fault& fault) {
  const std::lock_guard lock(mutex_);
  EndFor(fault);
}

void RingCall::EndFor(const Fault& fault) {
  if (!over_) {
    CountError(fault, &metrics_);
    end_ = ToGrpcStatus(fault, readiness_.instance_id);
  }
  over_ = true;
}

// Steps call back into this object, so it stays until the last one is done.
void RingCall::End() {
  Place gone;  // whoever unregisters the region waits for this
  {
    std::unique_lock lock(mutex_);
    unsent_.clear();
    for (const std::shared_ptr<Step>& step : under_way_) step->cancelled = true;
    changed_.wait(lock, [this] { return under_way_.empty() && !writing_; });
    std::swap(gone, place_);
  }
  gone = {};
  FinishWith(end_);
}

void RingCall::FinishWith(const grpc::Status& status) {
  metrics_.of(Method::kServeRing).ended[status.error_code()].Add();
  Finish(status);
}

void RingCall::OnWriteDone(bool) {
  const std::lock_guard lock(mutex_);
  writing_ = false;
  changed_.notify_all();
}

void RingCall::OnCancel() {
  const std::lock_guard lock(mutex_);
  if (place_.words == nullptr) return;
  if (!over_) end_ = grpc::Status::CANCELLED;
  over_ = true;
  place_.words->server.Wake();
}

}  // namespace gdn
