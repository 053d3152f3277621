#include "server/service/shared_memory/regions.h"

#include <utility>

#include "server/wire/validate_step.h"

namespace gdn {
namespace {

Fault CheckName(std::string_view name) {
  if (IsWellFormedId(name)) return {};
  return FaultOf(v1::ERROR_REASON_MALFORMED_ID, "`region` is not 1 to 128 of [A-Za-z0-9._:/-].");
}

Fault InUse() {
  return FaultOf(v1::ERROR_REASON_ID_IN_USE, "A region of this name is registered.");
}

}  // namespace

Fault Regions::Register(const v1::RegisterSharedMemoryRequest& request) {
  if (Fault fault = CheckName(request.region()); !fault.ok()) return fault;
  if (Find(request.region()) != nullptr) return InUse();
  std::shared_ptr<Region> region;
  if (Fault fault = Open(request, &region); !fault.ok()) return fault;
  const std::lock_guard lock(mutex_);
  return regions_.try_emplace(request.region(), std::move(region)).second ? Fault() : InUse();
}

// Without the lock: to map and pin a large region takes its time.
Fault Regions::Open(const v1::RegisterSharedMemoryRequest& request,
                    std::shared_ptr<Region>* region) const {
  switch (request.handle_case()) {
    case v1::RegisterSharedMemoryRequest::kPosixName:
      return Region::OpenPosix(request.posix_name(), request.byte_size(), prefix_, opener_, region);
    case v1::RegisterSharedMemoryRequest::kCudaIpcHandle:
      return Region::OpenIpc(request.cuda_ipc_handle(), request.byte_size(), opener_, region);
    case v1::RegisterSharedMemoryRequest::HANDLE_NOT_SET:
      break;
  }
  return FaultOf(v1::ERROR_REASON_UNSUPPORTED, "The region has no handle that is known here.");
}

Fault Regions::Unregister(std::string_view name, std::function<void()> done) {
  if (Fault fault = CheckName(name); !fault.ok()) return fault;
  if (std::shared_ptr<Region> region = Leave(name); region == nullptr) {
    done();
  } else {
    const std::lock_guard lock(mutex_);
    region->add_on_gone(std::move(done));
  }
  return {};
}

// The region of this name, or the last one, which steps still hold; or null.
std::shared_ptr<Region> Regions::Leave(std::string_view name) {
  const absl::string_view key(name.data(), name.size());
  const std::lock_guard lock(mutex_);
  absl::erase_if(leaving_, [](const auto& entry) { return entry.second.expired(); });
  const auto found = regions_.find(key);
  if (found == regions_.end()) {
    const auto before = leaving_.find(key);
    return before == leaving_.end() ? nullptr : before->second.lock();
  }
  std::shared_ptr<Region> region = std::move(found->second);
  regions_.erase(found);
  leaving_[key] = region;
  return region;
}

std::shared_ptr<Region> Regions::Find(std::string_view name) const {
  const std::lock_guard lock(mutex_);
  const auto found = regions_.find(absl::string_view(name.data(), name.size()));
  return found == regions_.end() ? nullptr : found->second;
}

}  // namespace gdn
