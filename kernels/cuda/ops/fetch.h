// Bytes that a kernel brings in by itself. Where there are few, a copy engine takes longer to take
// over from the kernels, and they from it, than the bytes take to travel.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace gdn::cuda {

// What a block of threads brings. It reads this from the host, too, and blocks that read there from
// the same line wait for one another, a microsecond each: so every one has a line of its own.
struct alignas(128) FetchPiece {
  static constexpr size_t kMostBytes = 16 << 10;

  const void* from;  // of the host or of the device; on 16 bytes, as all that follows
  void* to;
  uint64_t bytes;  // 0: there is nothing
};

// Copies `count` pieces, which lie in memory of the host that the device reaches and are read when
// the kernel runs. `ahead`: the kernel that follows on the stream may begin before all is there. It
// must wait for that before it lets the one after it begin, which may read the bytes at once.
cudaError_t Fetch(const FetchPiece* pieces, size_t count, bool ahead, cudaStream_t stream);

}  // namespace gdn::cuda
