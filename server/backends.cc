#include "server/backends.h"

#include "kernels/cpu/cpu_backend.h"

namespace gdn {

absl::StatusOr<std::unique_ptr<Backend>> MakeBackend(const std::string& name,
                                                     const BackendShape& shape, int threads) {
  if (name == "cuda") return absl::FailedPreconditionError("this build has no cuda backend");
  return MakeCpuBackend(shape, threads);
}

}  // namespace gdn
