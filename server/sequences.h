// The calls of gdn.v1.SequenceService on the slot table. Each runs on the engine's thread and
// either fills its response or returns why not.
#pragma once

#include <string>

#include "absl/time/time.h"
#include "gdn/v1/sequence_service.pb.h"
#include "server/engine.h"
#include "server/fault.h"

namespace gdn {

struct SequenceRules {
  std::string instance_id;
  absl::Duration step_ttl;
  absl::Duration max_ttl;
};

// What can be refused without looking at the table.
Fault Validate(const v1::ReleaseSequencesRequest& request);
Fault Validate(const v1::RenewSequencesRequest& request, const SequenceRules& rules);
Fault Validate(const v1::ListSequencesRequest& request, const SequenceRules& rules);

Fault Get(const v1::GetSequenceRequest& request, Engine* engine, v1::GetSequenceResponse* response);
Fault List(const v1::ListSequencesRequest& request, const SequenceRules& rules, Engine* engine,
           v1::ListSequencesResponse* response);
Fault Release(const v1::ReleaseSequencesRequest& request, Engine* engine);
Fault Renew(const v1::RenewSequencesRequest& request, const SequenceRules& rules, Engine* engine,
            absl::Time now, v1::RenewSequencesResponse* response);

}  // namespace gdn
