// A pool larger than the machine's memory.
#pragma once

#include <sys/mman.h>

#include <cstddef>

namespace gdn::test {

// Address space for a pool without memory behind it: pages that are touched read as zero.
class SparsePool {
 public:
  explicit SparsePool(size_t bytes)
      : bytes_(bytes),
        data_(mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)) {}
  ~SparsePool() { munmap(data_, bytes_); }
  SparsePool(const SparsePool&) = delete;

  bool valid() const { return data_ != MAP_FAILED; }
  void* data() { return data_; }
  float* f32() { return static_cast<float*>(data_); }

 private:
  size_t bytes_;
  void* data_;
};

}  // namespace gdn::test
