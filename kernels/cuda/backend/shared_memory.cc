#include "kernels/cuda/backend/shared_memory.h"

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstring>

#include "absl/strings/str_cat.h"

namespace gdn {
namespace cuda {
namespace {

// An error that is dealt with here must not be met again by who launches a kernel next.
cudaError_t Forget(cudaError_t error) {
  if (error != cudaSuccess) cudaGetLastError();
  return error;
}

absl::Status ToStatus(const char* what, cudaError_t error) {
  if (Forget(error) == cudaSuccess) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(what, ": ", cudaGetErrorString(error), "."));
}

// Copies that wait, on the stream of the calling thread: steps are not held up.
class ReachedMemory : public DeviceMemory {
 public:
  explicit ReachedMemory(std::byte* address) : address_(address) {}

  std::byte* address() const override { return address_; }
  absl::Status Read(size_t offset, std::span<std::byte> to) const override {
    return Copy(to.data(), address_ + offset, to.size());
  }
  absl::Status Write(size_t offset, std::span<const std::byte> from) const override {
    return Copy(address_ + offset, from.data(), from.size());
  }

 private:
  static absl::Status Copy(void* to, const void* from, size_t size) {
    cudaError_t error = cudaMemcpyAsync(to, from, size, cudaMemcpyDefault, cudaStreamPerThread);
    if (error == cudaSuccess) error = cudaStreamSynchronize(cudaStreamPerThread);
    return ToStatus("copy", error);
  }

  std::byte* const address_;
};

class PinnedMemory final : public ReachedMemory {
 public:
  PinnedMemory(std::byte* host, std::byte* address) : ReachedMemory(address), host_(host) {}
  ~PinnedMemory() override { Forget(cudaHostUnregister(host_)); }

 private:
  std::byte* const host_;
};

class IpcMemory final : public ReachedMemory {
 public:
  using ReachedMemory::ReachedMemory;
  ~IpcMemory() override { Forget(cudaIpcCloseMemHandle(address())); }
};

// The bytes from `address`, where its allocation begins, to the allocation's end; 0: not known.
size_t AllocatedBytes(const std::byte* address) {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found;
  if (cudaGetDriverEntryPointByVersion("cuMemGetAddressRange", &function, 12000, cudaEnableDefault,
                                       &found) != cudaSuccess ||
      found != cudaDriverEntryPointSuccess) {
    return 0;
  }
  CUdeviceptr base = 0;
  size_t size = 0;
  const auto get = reinterpret_cast<decltype(&cuMemGetAddressRange)>(function);
  const auto at = reinterpret_cast<CUdeviceptr>(address);
  return get(&base, &size, at) == CUDA_SUCCESS && base == at ? size : 0;
}

class CudaMemoryOpener final : public DeviceMemoryOpener {
 public:
  absl::StatusOr<std::unique_ptr<DeviceMemory>> Pin(std::span<std::byte> memory) override;
  absl::StatusOr<std::unique_ptr<DeviceMemory>> OpenIpc(std::string_view handle,
                                                        size_t size) override;
};

absl::StatusOr<std::unique_ptr<DeviceMemory>> CudaMemoryOpener::Pin(std::span<std::byte> memory) {
  absl::Status status = ToStatus("cudaSetDevice", cudaSetDevice(0));
  if (!status.ok()) return status;
  status = ToStatus("cudaHostRegister",
                    cudaHostRegister(memory.data(), memory.size(), cudaHostRegisterMapped));
  if (!status.ok()) return status;
  void* address = nullptr;
  status =
      ToStatus("cudaHostGetDevicePointer", cudaHostGetDevicePointer(&address, memory.data(), 0));
  auto pinned = std::make_unique<PinnedMemory>(memory.data(), static_cast<std::byte*>(address));
  if (!status.ok()) return status;
  return pinned;
}

absl::StatusOr<std::unique_ptr<DeviceMemory>> CudaMemoryOpener::OpenIpc(std::string_view handle,
                                                                        size_t size) {
  cudaIpcMemHandle_t ipc;
  if (handle.size() != sizeof ipc) {
    return absl::InvalidArgumentError(
        absl::StrCat("A cudaIpcMemHandle_t has ", sizeof ipc, " bytes, not ", handle.size(), "."));
  }
  std::memcpy(&ipc, handle.data(), sizeof ipc);
  absl::Status status = ToStatus("cudaSetDevice", cudaSetDevice(0));
  if (!status.ok()) return status;
  void* address = nullptr;
  status = ToStatus("cudaIpcOpenMemHandle",
                    cudaIpcOpenMemHandle(&address, ipc, cudaIpcMemLazyEnablePeerAccess));
  if (!status.ok()) return status;
  auto opened = std::make_unique<IpcMemory>(static_cast<std::byte*>(address));
  const size_t there = AllocatedBytes(opened->address());
  if (there < size) {
    return absl::OutOfRangeError(
        absl::StrCat("byte_size is ", size, ", the allocation has ", there, " bytes."));
  }
  return opened;
}

}  // namespace
}  // namespace cuda

std::unique_ptr<DeviceMemoryOpener> MakeCudaMemoryOpener() {
  return std::make_unique<cuda::CudaMemoryOpener>();
}

}  // namespace gdn
