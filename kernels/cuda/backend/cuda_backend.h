// The backend that runs on one NVIDIA GPU.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "kernels/backend.h"

namespace gdn {

// Whether this machine has a device, with a driver, that the kernels run on.
bool CudaDevicePresent();

// `shape` is valid (kernels/validate.h). RESOURCE_EXHAUSTED where its pools do not fit into the
// device's memory, FAILED_PRECONDITION where there is no device.
absl::StatusOr<std::unique_ptr<Backend>> MakeCudaBackend(const BackendShape& shape);

}  // namespace gdn
