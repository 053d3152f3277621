// Memory of the device, and of the host where the copy engines reach it. Taken once, at start.
#pragma once

#include <cstddef>
#include <utility>

#include "absl/status/statusor.h"

namespace gdn::cuda {

// What lies side by side in a memory lies on so many bytes.
constexpr size_t Aligned(size_t bytes) { return (bytes + 255) / 256 * 256; }

// Movable; frees what it holds.
class Memory {
 public:
  enum class Place { kDevice, kPinned };

  // RESOURCE_EXHAUSTED where there is not as much.
  static absl::StatusOr<Memory> Make(Place place, size_t bytes);

  Memory() = default;
  Memory(Memory&& other) noexcept
      : place_(other.place_),
        data_(std::exchange(other.data_, nullptr)),
        size_(std::exchange(other.size_, 0)) {}
  Memory& operator=(Memory&& other) noexcept;
  ~Memory();

  std::byte* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  Place place_ = Place::kDevice;
  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace gdn::cuda
