#include "server/backends.h"

#include "kernels/cpu/cpu_backend.h"
#ifdef GDN_HAVE_CUDA
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/shared_memory.h"
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
#else
bool CanRunCuda() { return false; }

absl::StatusOr<std::unique_ptr<Backend>> MakeCuda(const BackendShape&) {
  return absl::FailedPreconditionError(
      "--backend=cuda: this build has no CUDA backend; one of ./dev build --cuda has");
}

std::unique_ptr<DeviceMemoryOpener> MakeCudaOpener() { return nullptr; }
#endif

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> MakeBackend(const std::string& name,
                                                     const BackendShape& shape, int threads) {
  if (name == "cuda" || (name == "auto" && CanRunCuda())) return MakeCuda(shape);
  return MakeCpuBackend(shape, threads);
}

std::unique_ptr<DeviceMemoryOpener> MakeDeviceMemoryOpener(std::string_view backend) {
  return backend == "cuda" ? MakeCudaOpener() : nullptr;
}

}  // namespace gdn
