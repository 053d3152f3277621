// Device memory that is host memory, for what only asks where it is.
#pragma once

#include <atomic>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "kernels/device_memory.h"

namespace gdn::test {

class FakeDeviceMemory final : public DeviceMemory {
 public:
  FakeDeviceMemory(std::byte* address, std::atomic<int>* open) : address_(address), open_(open) {
    ++*open_;
  }
  ~FakeDeviceMemory() override { --*open_; }

  std::byte* address() const override { return address_; }
  absl::Status Read(size_t offset, std::span<std::byte> to) const override {
    std::memcpy(to.data(), address_ + offset, to.size());
    return absl::OkStatus();
  }
  absl::Status Write(size_t offset, std::span<const std::byte> from) const override {
    std::memcpy(address_ + offset, from.data(), from.size());
    return absl::OkStatus();
  }

 private:
  std::byte* const address_;
  std::atomic<int>* const open_;
};

// Pins everything, and opens the allocations that it was given by name.
class FakeDeviceMemoryOpener final : public DeviceMemoryOpener {
 public:
  absl::StatusOr<std::unique_ptr<DeviceMemory>> Pin(std::span<std::byte> memory) override {
    if (refuses) return absl::InvalidArgumentError("It cannot be pinned.");
    return std::make_unique<FakeDeviceMemory>(memory.data(), &open);
  }
  absl::StatusOr<std::unique_ptr<DeviceMemory>> OpenIpc(std::string_view handle,
                                                        size_t size) override {
    const auto found = allocations.find(std::string(handle));
    if (found == allocations.end()) return absl::InvalidArgumentError("There is no such handle.");
    if (found->second.size() < size) return absl::OutOfRangeError("It is smaller.");
    return std::make_unique<FakeDeviceMemory>(found->second.data(), &open);
  }

  bool refuses = false;
  std::atomic<int> open = 0;  // memories that it has given out and that live
  std::map<std::string, std::vector<std::byte>> allocations;
};

}  // namespace gdn::test
