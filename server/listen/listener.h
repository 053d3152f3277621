// A listening socket.
#pragma once

#include <sys/types.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "server/listen/address.h"

namespace gdn {

// Owns one file descriptor.
class FileDescriptor {
 public:
  explicit FileDescriptor(int fd = -1) : fd_(fd) {}
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~FileDescriptor();

  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

struct Listener {
  std::vector<FileDescriptor> sockets;  // one for each address that a name has
  Address address;                      // with the port that was given
  ino_t inode = 0;                      // of a Unix socket's file
};

// Listens. A Unix socket has `unix_mode` from its first moment, and takes the place of one that
// nobody removed. UNAVAILABLE names the address and says why.
absl::StatusOr<Listener> Listen(const Address& address, mode_t unix_mode);

}  // namespace gdn
