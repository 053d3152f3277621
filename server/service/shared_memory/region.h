// Memory that a caller shares with the server: a POSIX object, or memory of the device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/device_memory.h"
#include "server/service/shared_memory/mapping.h"
#include "server/wire/fault.h"

namespace gdn {

class Region {
 public:
  // Maps the object `name` of shm_open, which begins with `prefix`. Where there is an opener, and
  // the object's pages are all there, the device reaches it too.
  static Fault OpenPosix(std::string_view name, uint64_t size, std::string_view prefix,
                         DeviceMemoryOpener* opener, std::shared_ptr<Region>* region);
  // Memory of the device by its cudaIpcMemHandle_t. No opener: UNSUPPORTED.
  static Fault OpenIpc(std::string_view handle, uint64_t size, DeviceMemoryOpener* opener,
                       std::shared_ptr<Region>* region);
  // Unmaps it, and then calls what was added.
  ~Region();

  uint64_t size() const { return size_; }
  // Null where only the device reaches it.
  std::byte* host() const { return mapping_ == nullptr ? nullptr : mapping_->data(); }
  // Null where the device does not reach it.
  DeviceMemory* device() const { return device_.get(); }
  // How much of it there is now: less than size() once its owner has truncated it, and 0 once that
  // was met with.
  uint64_t present() const;

  // By one thread at a time.
  void add_on_gone(std::function<void()> on_gone) { on_gone_.push_back(std::move(on_gone)); }

 private:
  class File;

  explicit Region(uint64_t size);

  const uint64_t size_;
  std::unique_ptr<File> file_;
  std::unique_ptr<SharedMapping> mapping_;
  std::unique_ptr<DeviceMemory> device_;  // of what is mapped, so gone before it
  std::vector<std::function<void()>> on_gone_;
};

}  // namespace gdn
