// What a server that is ready has: the model's facts, the rules for requests, and the engine.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <string>

#include "gdn/v1/gdn_service.pb.h"
#include "kernels/host_pool.h"
#include "server/engine/engine.h"
#include "server/listen/token_file.h"
#include "server/metrics/metrics.h"
#include "server/service/sequences.h"
#include "server/service/shared_memory/regions.h"
#include "server/wire/validate_step.h"

namespace gdn {

struct Hosted {
  v1::GetServerInfoResponse info;  // but for slots_used
  StepLimits limits;
  SequenceRules rules;
  Engine* engine = nullptr;
  // Of the steps that a stream has under way and the answers that it has yet to send, beyond which
  // nothing more is read of it.
  size_t max_stream_bytes = size_t{64} << 20;
  std::shared_ptr<HostPool> input_pool;   // of the backend, for inputs; or null
  std::shared_ptr<HostPool> output_pool;  // likewise, for answers
  Regions* regions = nullptr;             // may be null where limits do not allow shared memory
  std::string backend;                    // its name
};

// Where services look for it: null until everything is loaded (NOT_READY).
struct Readiness {
  std::string instance_id;
  const std::unique_ptr<Metrics> metrics = std::make_unique<Metrics>();
  const TokenFile* tokens = nullptr;  // null: every call is allowed
  std::atomic<const Hosted*> hosted = nullptr;
};

}  // namespace gdn
