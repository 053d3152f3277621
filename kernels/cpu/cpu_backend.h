// The backend that runs on the host's own cores.
#pragma once

#include <memory>

#include "kernels/backend.h"

namespace gdn {

// `shape` is valid (kernels/validate.h). threads: how many cores it may use, 0 for all.
std::unique_ptr<Backend> MakeCpuBackend(const BackendShape& shape, int threads);

}  // namespace gdn
