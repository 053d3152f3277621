// One ServeRing call: a thread that takes what is posted in the ring, and the answers' way back.
// Start reading at RingCall::Serve.
#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "absl/container/flat_hash_set.h"
#include "gdn/v1/shared_memory_service.pb.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "server/service/hosted.h"
#include "server/service/shared_memory/region.h"
#include "server/service/shared_memory/ring_queue.h"
#include "server/wire/step.h"

namespace gdn {

class RingCall : public grpc::ServerWriteReactor<grpc::ByteBuffer> {
 public:
  // Requests stay in the ring while so many steps are unanswered or their answers have no room.
  static constexpr size_t kMostUnderWay = 64;

  // `fault`: what is wrong with the call already.
  RingCall(const Readiness& readiness, const Fault& fault, const v1::Ring& ring,
           const grpc::CallbackServerContext& context);

 private:
  // Where the ring lies; null pointers until it was found to be in order.
  struct Place {
    std::shared_ptr<Region> region;
    RingWords* words = nullptr;
    std::optional<RingReader> requests;
    std::optional<RingWriter> responses;
  };

  Fault Open(const Hosted& hosted, const v1::Ring& ring);
  // The thread's life, until the call is over or the ring broken; then it ends the call.
  void Serve();
  // Takes a request, or sends answers that waited for room; false: there was nothing to do.
  bool Advance();
  bool TakeRequest();
  void Handle(const std::string& message);
  void Answered(uint64_t tag, const std::shared_ptr<Step>& step, const Fault& fault,
                const StepAnswer& answer);
  // These require the lock.
  void Send(std::string message);
  bool SendUnsent();
  void EndFor(const Fault& fault);
  bool MayTake() const { return under_way_.size() + unsent_.size() < kMostUnderWay; }

  void Sleep();
  uint32_t Wants();
  void Break(const Fault& fault);
  void End();
  // Counts the end, and lets it be.
  void FinishWith(const grpc::Status& status);

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override { delete this; }

  const Readiness& readiness_;
  Metrics& metrics_;
  const absl::Time deadline_;
  const grpc::ByteBuffer first_;  // the answer that says that the ring is served
  Engine* engine_ = nullptr;
  Place place_;

  std::mutex mutex_;
  std::condition_variable changed_;
  absl::flat_hash_set<std::shared_ptr<Step>> under_way_;
  std::deque<std::string> unsent_;
  bool writing_ = false;            // the first answer
  std::atomic<bool> over_ = false;  // the caller is gone, or the ring is broken
  grpc::Status end_ = grpc::Status::OK;
};

}  // namespace gdn
