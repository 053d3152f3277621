// What planes_bench measures of the CUDA backend by itself.
#pragma once

#include "kernels/backend.h"
#include "tests/bench/planes_server.h"

namespace gdn {

// Whether this build and this machine have the CUDA backend.
bool HaveDevice();

// The backend with its layer loaded, and what a server takes of its device. REQUIRES HaveDevice().
PlanesBackend MakeDeviceBackend(const BackendShape& shape);

// µs of a step of `rows` rows of `tokens` together, the median of many.
struct StepTimes {
  double device = 0;      // as TimeOnDevice says, with the copies
  double kernels = 0;     // without them
  double in_process = 0;  // by the backend called in process with tensors in ordinary memory
};
StepTimes TimeStep(const BackendShape& shape, int64_t rows, int64_t tokens);

}  // namespace gdn
