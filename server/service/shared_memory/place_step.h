// Where a step's tensors lie that are in shared memory.
#pragma once

#include "server/service/shared_memory/regions.h"
#include "server/wire/step.h"
#include "server/wire/validate_step.h"

namespace gdn {

// Gives a step that ValidateStep passed, and that names a region, its input and the place of its
// output; it keeps the region until it is gone. What the host would read is copied now, so that
// nothing its owner does later changes it; large tensors that the device reaches are left to it.
// REGION_NOT_FOUND; INPUT_SIZE_MISMATCH where a tensor leaves the region, or the region was
// truncated; MALFORMED_BATCH where they overlap against the rule at gdn.v1.SharedMemory.
Fault PlaceStep(const Regions& regions, const StepLimits& limits, Step* step);

}  // namespace gdn
