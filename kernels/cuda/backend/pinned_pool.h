// Pinned memory of the host, for answers that the device writes by itself.
#pragma once

#include <cstddef>
#include <memory>

#include "absl/status/statusor.h"
#include "kernels/host_pool.h"

namespace gdn {

// RESOURCE_EXHAUSTED where there is not as much.
absl::StatusOr<std::shared_ptr<HostPool>> MakePinnedPool(size_t bytes);

}  // namespace gdn
