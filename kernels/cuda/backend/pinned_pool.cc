#include "kernels/cuda/backend/pinned_pool.h"

#include <utility>

#include "kernels/cuda/backend/memory.h"

namespace gdn {

absl::StatusOr<std::shared_ptr<HostPool>> MakePinnedPool(size_t bytes) {
  absl::StatusOr<cuda::Memory> made = cuda::Memory::Make(cuda::Memory::Place::kPinned, bytes);
  if (!made.ok()) return made.status();
  auto memory = std::make_shared<cuda::Memory>(*std::move(made));
  return std::make_shared<HostPool>(memory, memory->data(), memory->size());
}

}  // namespace gdn
