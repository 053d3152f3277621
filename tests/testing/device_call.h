// Device copies of the operands of one call of an op. Binding an operand replaces the host pointer
// in the parameters by a device pointer; Run launches and copies back what may have been written.
#pragma once

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <vector>

#include "kernels/chunk_index.h"
#include "kernels/ops/operands.h"

namespace gdn::test {

// [tokens, width] with rows `stride` elements apart.
struct Extent {
  int64_t tokens;
  int64_t width;
  int64_t stride;
};

inline Extent Dense(int64_t tokens, int64_t width) { return {tokens, width, width}; }

class DeviceCall {
 public:
  DeviceCall() = default;
  ~DeviceCall();
  DeviceCall(const DeviceCall&) = delete;

  // Null where there is no device for these kernels; otherwise why.
  static const char* Unavailable();

  // An operand that is read.
  void In(const void*& pointer, DType type, const Extent& extent);
  void In(const float*& pointer, const Extent& extent);

  // One that is written in full: it is NaN before, unless it is an operand already bound. Elements
  // between its rows keep their values.
  void Out(void*& pointer, DType type, const Extent& extent);
  void Out(float*& pointer, const Extent& extent);

  // Indices, read or written in full.
  void In(const int64_t*& pointer, int64_t count);
  void Out(int64_t*& pointer, int64_t count);

  // One that may be written in part.
  void InOut(void*& pointer, DType type, const Extent& extent);

  void Bind(Rows& rows);

  // The slots of `host`, the rows as they were before they were bound, `size` elements each. Where
  // the pool is small, writing to anything else in it or to a slot's length about it is a failure.
  void Bind(StatePool& pool, const Rows& host, int64_t size);

  // Device chunks for the rows with these host offsets.
  Chunks ChunksOf(const Rows& host);

  // Scratch of so many bytes, all NaN.
  void* Scratch(size_t bytes);

  // Launches on a stream, waits, and copies back. Errors of any kind are failures of the test.
  void Run(const std::function<cudaError_t(cudaStream_t)>& launch);

 private:
  struct Buffer {
    std::byte* host;
    size_t bytes;
    std::byte* device;
    bool download;
  };
  struct Pool {
    StatePool host;
    std::byte* device;  // a slot's length before slot 0
    size_t bytes;
    std::vector<bool> owned;  // by slot
    size_t slot_bytes;
    size_t used_bytes;  // of a slot
  };

  std::byte* Allocate(size_t bytes);
  Buffer* Find(const void* host, size_t bytes);
  Buffer* Upload(const void* host, size_t bytes);
  void DownloadPool(const Pool& pool);

  std::vector<std::byte*> allocations_;
  std::list<Buffer> buffers_;
  std::vector<Pool> pools_;
};

}  // namespace gdn::test
