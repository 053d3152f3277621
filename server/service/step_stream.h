// One Stream call: steps under way, each answered once when it is done, with its status in band.
#pragma once

#include <deque>
#include <memory>
#include <mutex>
#include <optional>

#include "absl/container/flat_hash_set.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "server/service/hosted.h"
#include "server/wire/codec.h"
#include "server/wire/step.h"

namespace gdn {

// Reading stops while kMostUnderWay steps are unanswered or their answers unsent, or these have
// Hosted::max_stream_bytes, so that a caller who does not read holds up nobody but itself.
class StepStream : public grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  static constexpr size_t kMostUnderWay = 64;

  StepStream(const Readiness& readiness, const grpc::CallbackServerContext& context);

 private:
  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override { delete this; }

  // The message that was read: starts its step, answers it, or ends the stream.
  void Handle();
  void Answered(uint64_t tag, const std::shared_ptr<Step>& step, const Fault& fault,
                const StepAnswer& answer);
  void End(const Fault& fault);

  template <typename Change>
  void GoOn(const Change& change);
  // These require the lock.
  void Send(const grpc::ByteBuffer& message);
  void Sent();
  bool MayRead() const;
  bool IsOver() const;

  const Readiness& readiness_;
  Metrics& metrics_;
  const absl::Time deadline_;
  grpc::ByteBuffer request_;

  std::mutex mutex_;
  std::deque<grpc::ByteBuffer> answers_;  // front: being written
  absl::flat_hash_set<std::shared_ptr<Step>> under_way_;
  size_t bytes_ = 0;       // of the inputs of under_way_ and of answers_
  bool handling_ = false;  // a message is between its read and its step
  bool reading_ = false;
  bool no_more_reads_ = false;
  bool broken_ = false;  // nobody listens
  bool finished_ = false;
  grpc::Status end_ = grpc::Status::OK;
};

}  // namespace gdn
