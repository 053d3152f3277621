// A POSIX shared-memory object of a test, and what its owner may do to it.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <string>

#include "gtest/gtest.h"

namespace gdn::test {

class SharedObject {
 public:
  // Its pages are all there where it is `filled`.
  explicit SharedObject(size_t size, bool filled = true, const std::string& prefix = "gdn")
      : size_(size),
        name_("/" + prefix + "-test-" + std::to_string(getpid()) + "-" + NextNumber()) {
    fd_ = shm_open(name_.c_str(), O_RDWR | O_CREAT | O_EXCL, 0600);
    EXPECT_GE(fd_, 0) << name_;
    Resize(size);
    EXPECT_EQ(filled ? posix_fallocate(fd_, 0, static_cast<off_t>(size)) : 0, 0);
    data_ =
        static_cast<std::byte*>(mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0));
  }
  ~SharedObject() {
    munmap(data_, size_);
    close(fd_);
    shm_unlink(name_.c_str());
  }
  SharedObject(const SharedObject&) = delete;
  SharedObject& operator=(const SharedObject&) = delete;

  void Resize(size_t size) { EXPECT_EQ(ftruncate(fd_, static_cast<off_t>(size)), 0); }
  const std::string& name() const { return name_; }
  int fd() const { return fd_; }
  // As the owner sees it; it faults where it was truncated.
  std::byte* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  static std::string NextNumber() {
    static int count = 0;
    return std::to_string(++count);
  }

  const size_t size_;
  const std::string name_;
  int fd_ = -1;
  std::byte* data_ = nullptr;
};

}  // namespace gdn::test
