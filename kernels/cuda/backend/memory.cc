#include "kernels/cuda/backend/memory.h"

#include <cuda_runtime_api.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace gdn::cuda {

absl::StatusOr<Memory> Memory::Make(Place place, size_t bytes) {
  Memory memory;
  if (bytes == 0) return memory;
  void* data = nullptr;
  const cudaError_t error =
      place == Place::kDevice ? cudaMalloc(&data, bytes) : cudaMallocHost(&data, bytes);
  if (error != cudaSuccess) {
    cudaGetLastError();  // not to be taken for that of a launch
    return absl::ResourceExhaustedError(
        absl::StrCat(bytes >> 20, " MiB of ", place == Place::kDevice ? "device" : "pinned host",
                     " memory: ", cudaGetErrorString(error)));
  }
  memory.place_ = place;
  memory.data_ = static_cast<std::byte*>(data);
  memory.size_ = bytes;
  return memory;
}

Memory& Memory::operator=(Memory&& other) noexcept {
  std::swap(place_, other.place_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

Memory::~Memory() {
  if (data_ == nullptr) return;
  if (place_ == Place::kDevice) {
    cudaFree(data_);
  } else {
    cudaFreeHost(data_);
  }
}

}  // namespace gdn::cuda
