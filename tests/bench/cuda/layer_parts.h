// What a prefill's layer cannot do without: its GEMMs and the delta rule, each alone.
#pragma once

#include <cstdint>
#include <string>

#include "kernels/geometry.h"
#include "tests/bench/cuda/report.h"

namespace gdn::bench {

// Their time together, in µs, for one row of `tokens` in bf16; each has its line, named after
// `layer`. The heads are those of PrefillInputs.
double MicrosOfParts(const Report& report, const std::string& layer, const Geometry& geometry,
                     int64_t tokens);

}  // namespace gdn::bench
