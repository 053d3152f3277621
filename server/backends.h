// The backends this build has, by name.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/device_memory.h"
#include "kernels/host_pool.h"

namespace gdn {

// `name` is auto, cpu or cuda; auto is cuda where this build has it and this machine a GPU for it,
// else cpu. FAILED_PRECONDITION where this build or this machine has no such backend. `threads` is
// for the cpu backend; 0: all cores.
absl::StatusOr<std::unique_ptr<Backend>> MakeBackend(const std::string& name,
                                                     const BackendShape& shape, int threads);

// How the backend of this name reaches memory that callers share; null where it copies by the host.
std::unique_ptr<DeviceMemoryOpener> MakeDeviceMemoryOpener(std::string_view backend);

// Memory that this backend's device reads inputs from, or writes answers to, by itself; or null
// where it has none. RESOURCE_EXHAUSTED where there is not enough.
absl::StatusOr<std::shared_ptr<HostPool>> MakeHostPool(const Backend& backend,
                                                       const BackendShape& shape);

// Tokens of a prefill that run at once, where the configuration leaves it to the backend.
uint32_t DefaultPrefillChunk(const Backend& backend);

}  // namespace gdn
