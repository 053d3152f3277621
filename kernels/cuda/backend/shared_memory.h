// How this device gets at memory that others share with the server.
#pragma once

#include <memory>

#include "kernels/device_memory.h"

namespace gdn {

// REQUIRES a device (CudaDevicePresent).
std::unique_ptr<DeviceMemoryOpener> MakeCudaMemoryOpener();

}  // namespace gdn
