// The calls of gdn.v1.SequenceService on the slot table: one set of functions, overloaded by the
// request.
#pragma once

#include <string>

#include "absl/time/time.h"
#include "gdn/v1/sequence_service.pb.h"
#include "server/engine/engine.h"
#include "server/wire/fault.h"

namespace gdn {

struct SequenceRules {
  std::string instance_id;
  absl::Duration step_ttl;
  absl::Duration max_ttl;
};

// What can be refused without looking at the table.
Fault Validate(const v1::GetSequenceRequest& request, const SequenceRules& rules);
Fault Validate(const v1::ListSequencesRequest& request, const SequenceRules& rules);
Fault Validate(const v1::ReleaseSequencesRequest& request, const SequenceRules& rules);
Fault Validate(const v1::RenewSequencesRequest& request, const SequenceRules& rules);

// Where the call stands in the engine's queue.
CallPlace PlaceOf(const v1::GetSequenceRequest& request);
CallPlace PlaceOf(const v1::ListSequencesRequest& request);
CallPlace PlaceOf(const v1::ReleaseSequencesRequest& request);
CallPlace PlaceOf(const v1::RenewSequencesRequest& request);

// Runs a call that passed Validate, on the engine's thread: fills the response or returns why not.
Fault Execute(const v1::GetSequenceRequest& request, const SequenceRules& rules, Engine* engine,
              absl::Time now, v1::GetSequenceResponse* response);
Fault Execute(const v1::ListSequencesRequest& request, const SequenceRules& rules, Engine* engine,
              absl::Time now, v1::ListSequencesResponse* response);
Fault Execute(const v1::ReleaseSequencesRequest& request, const SequenceRules& rules,
              Engine* engine, absl::Time now, v1::ReleaseSequencesResponse* response);
Fault Execute(const v1::RenewSequencesRequest& request, const SequenceRules& rules, Engine* engine,
              absl::Time now, v1::RenewSequencesResponse* response);

}  // namespace gdn
