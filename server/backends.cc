#include "server/backends.h"

#include <algorithm>
#include <bit>

#include "kernels/cpu/cpu_backend.h"
#ifdef GDN_HAVE_CUDA
#include "kernels/cuda/backend/cuda_backend.h"
#include "kernels/cuda/backend/pinned_pool.h"
#include "kernels/cuda/backend/shared_memory.h"
#endif

namespace gdn {
namespace {

#ifdef GDN_HAVE_CUDA
bool CanRunCuda() { return CudaDevicePresent(); }

absl::StatusOr<std::unique_ptr<Backend>> MakeCuda(const BackendShape& shape) {
  if (CanRunCuda()) return MakeCudaBackend(shape);
  return absl::FailedPreconditionError(
      "--backend=cuda: this machine has no Hopper GPU, or no driver that can run this build on it");
}

std::unique_ptr<DeviceMemoryOpener> MakeCudaOpener() { return MakeCudaMemoryOpener(); }

// Of the largest answer four: as many as may be on their way while the next ones are made.
absl::StatusOr<std::shared_ptr<HostPool>> MakePinned(const BackendShape& shape) {
  constexpr size_t kLeast = size_t{64} << 20;
  const size_t largest = static_cast<size_t>(shape.max_tokens) * shape.answer_row_bytes();
  return MakePinnedPool(std::max(kLeast, 4 * std::bit_ceil(largest)));
}
#else
bool CanRunCuda() { return false; }

absl::StatusOr<std::unique_ptr<Backend>> MakeCuda(const BackendShape&) {
  return absl::FailedPreconditionError(
      "--backend=cuda: this build has no CUDA backend; one of ./dev build --cuda has");
}

std::unique_ptr<DeviceMemoryOpener> MakeCudaOpener() { return nullptr; }

absl::StatusOr<std::shared_ptr<HostPool>> MakePinned(const BackendShape&) { return nullptr; }
#endif

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> MakeBackend(const std::string& name,
                                                     const BackendShape& shape, int threads) {
  if (name == "cuda" || (name == "auto" && CanRunCuda())) return MakeCuda(shape);
  return MakeCpuBackend(shape, threads);
}

absl::StatusOr<std::shared_ptr<HostPool>> MakeHostPool(const Backend& backend,
                                                       const BackendShape& shape) {
  if (backend.name() == "cuda") return MakePinned(shape);
  return nullptr;
}

uint32_t DefaultPrefillChunk(const Backend& backend) {
  return backend.name() == "cuda" ? 1024 : 64;
}

std::unique_ptr<DeviceMemoryOpener> MakeDeviceMemoryOpener(std::string_view backend) {
  return backend == "cuda" ? MakeCudaOpener() : nullptr;
}

}  // namespace gdn
