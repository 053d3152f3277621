// What a caller's thread does until its answer has come: it sleeps, or it looks again and again. A
// thread that has slept longer than its host polls before it halts a core wakes up late.
#pragma once

#include <cstdint>
#include <string>

#include "grpcpp/completion_queue.h"

namespace gdn {

enum class Patience : uint8_t { kSleeps, kSpins };

// Behind the name of what is measured.
inline std::string NameOf(Patience patience) {
  return patience == Patience::kSpins ? ", spinning" : "";
}

// Takes the next event of the queue; false where the queue is at its end or the event says that its
// call failed.
inline bool Await(Patience patience, grpc::CompletionQueue* queue) {
  void* tag = nullptr;
  bool ok = false;
  if (patience == Patience::kSleeps) return queue->Next(&tag, &ok) && ok;
  grpc::CompletionQueue::NextStatus status;
  do {  // a deadline in the past: sockets are looked at, and nobody waits
    status = queue->AsyncNext(&tag, &ok, gpr_inf_past(GPR_CLOCK_MONOTONIC));
  } while (status == grpc::CompletionQueue::TIMEOUT);
  return status == grpc::CompletionQueue::GOT_EVENT && ok;
}

}  // namespace gdn
