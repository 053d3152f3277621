// Memory from the system: zero, and resident only where it has been touched.
#pragma once

#include <cstddef>

namespace gdn::cpu {

class Memory {
 public:
  Memory() = default;
  // Ends the process where the system refuses.
  explicit Memory(size_t bytes);
  Memory(Memory&& other) noexcept;
  Memory& operator=(Memory&& other) noexcept;
  ~Memory();

  std::byte* data() const { return data_; }
  size_t size() const { return size_; }
  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace gdn::cpu
