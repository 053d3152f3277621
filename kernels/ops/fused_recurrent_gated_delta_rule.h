#pragma once

#include "kernels/ops/gated_delta_rule.h"

namespace gdn {

// The recurrent form: rows of any length, token by token; decode is the case of length 1.
struct FusedRecurrentGatedDeltaRuleParams : GatedDeltaRuleParams {};

}  // namespace gdn
