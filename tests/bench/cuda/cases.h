// The groups of cases of cuda_bench, each in a file of its own.
#pragma once

#include "tests/bench/cuda/report.h"

namespace gdn::bench {

void DecodeCases(const Report& report);        // the decode kernel
void PrefillCases(const Report& report);       // the chunked gated delta rule and its steps
void CoreToNormedCases(const Report& report);  // that with what prefill does around it
void PointwiseCases(const Report& report);     // what prefill does around it, op by op
void LayerCases(const Report& report);         // whole layers, projections included

}  // namespace gdn::bench
