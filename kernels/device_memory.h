// Memory of somebody else that the device reaches by itself, without a copy by the host.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string_view>

#include "absl/status/statusor.h"

namespace gdn {

// Within reach for as long as this object lives. Thread-safe.
class DeviceMemory {
 public:
  virtual ~DeviceMemory() = default;

  // Where the device finds it: an address for BatchPart, not for the host.
  virtual std::byte* address() const = 0;
  // Copies between it and the host's own memory, and waits for the copy.
  virtual absl::Status Read(size_t offset, std::span<std::byte> to) const = 0;
  virtual absl::Status Write(size_t offset, std::span<const std::byte> from) const = 0;
};

// How a backend's device gets at it. Thread-safe.
class DeviceMemoryOpener {
 public:
  virtual ~DeviceMemoryOpener() = default;

  // Pins host memory, which stays mapped longer than the result lives.
  virtual absl::StatusOr<std::unique_ptr<DeviceMemory>> Pin(std::span<std::byte> memory) = 0;
  // Opens memory of the device that another process has allocated. OUT_OF_RANGE: the allocation is
  // smaller than `size`. INVALID_ARGUMENT: it cannot be opened here.
  virtual absl::StatusOr<std::unique_ptr<DeviceMemory>> OpenIpc(std::string_view handle,
                                                                size_t size) = 0;
};

}  // namespace gdn
