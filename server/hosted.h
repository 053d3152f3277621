// What a server that is ready has: the model's facts, the rules for requests, and the engine.
#pragma once

#include <atomic>
#include <string>

#include "gdn/v1/gdn_service.pb.h"
#include "server/engine.h"
#include "server/sequences.h"
#include "server/shared_memory/regions.h"
#include "server/validate_step.h"

namespace gdn {

struct Hosted {
  v1::GetServerInfoResponse info;  // but for slots_used
  StepLimits limits;
  SequenceRules rules;
  Engine* engine = nullptr;
  Regions* regions = nullptr;  // may be null where limits do not allow shared memory
};

// Where services look for it: null until everything is loaded (NOT_READY).
struct Readiness {
  std::string instance_id;
  std::atomic<const Hosted*> hosted = nullptr;
};

}  // namespace gdn
