// Device memory and timing for the benchmarks of the CUDA kernels. A CUDA error ends the program.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

namespace gdn::bench {

// Prints what failed and exits unless `error` is success.
void Check(cudaError_t error, const char* what);

// Bytes on the device, freed with this.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(size_t bytes);
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;
  ~Buffer();

  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  std::byte* bytes() const { return as<std::byte>(); }
  size_t size() const { return size_; }

 private:
  void* data_ = nullptr;
  size_t size_ = 0;
};

// A copy of host values on the device.
template <typename T>
Buffer ToDevice(const std::vector<T>& values) {
  Buffer buffer(values.size() * sizeof(T));
  Check(cudaMemcpy(buffer.bytes(), values.data(), buffer.size(), cudaMemcpyHostToDevice), "copy");
  return buffer;
}

// Enqueues call `i` of a benchmark.
using Launch = std::function<cudaError_t(int i, cudaStream_t stream)>;

// Time of one call in µs: a graph of launch(0), launch(1), … launch(calls - 1), the median of its
// replays divided by `calls`. What the calls touch together should exceed the L2 cache by far.
double MicrosPerCall(int calls, const Launch& launch);

// Bytes read and written per second, in GB/s, by a large copy on the device: the ceiling of what is
// bound by memory. On the stream, not in a graph, whose copy nodes take a slower engine.
double CopyBandwidth();

}  // namespace gdn::bench
