// The regions that callers have registered, by name. Thread-safe.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "absl/container/flat_hash_map.h"
#include "gdn/v1/shared_memory_service.pb.h"
#include "server/service/shared_memory/region.h"

namespace gdn {

class Regions {
 public:
  // Names of POSIX objects begin with `prefix`. `opener` may be null, and outlives this object and
  // the regions.
  Regions(std::string prefix, DeviceMemoryOpener* opener)
      : prefix_(std::move(prefix)), opener_(opener) {}

  Fault Register(const v1::RegisterSharedMemoryRequest& request);
  // Whoever holds the region keeps it; `done` is called when nobody does, at once where there is
  // none, else perhaps on the thread that let go of it last.
  Fault Unregister(std::string_view name, std::function<void()> done);
  // Null where there is none.
  std::shared_ptr<Region> Find(std::string_view name) const;

 private:
  Fault Open(const v1::RegisterSharedMemoryRequest& request, std::shared_ptr<Region>* region) const;
  std::shared_ptr<Region> Leave(std::string_view name);

  const std::string prefix_;
  DeviceMemoryOpener* const opener_;
  mutable std::mutex mutex_;
  absl::flat_hash_map<std::string, std::shared_ptr<Region>> regions_;
  // Unregistered, and still held: whoever unregisters them once more waits for the same.
  absl::flat_hash_map<std::string, std::weak_ptr<Region>> leaving_;
};

}  // namespace gdn
