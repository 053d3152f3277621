// A mapping of an object that another process may truncate at any moment.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>

#include "absl/status/statusor.h"

namespace gdn {

// Reads and writes of it never end this process: where the object does not reach any more, the
// whole mapping turns into zeros that nobody else sees, and lost() says so. (SIGBUS is caught for
// that.)
class SharedMapping {
 public:
  // Of the object's first `size` bytes, not 0. RESOURCE_EXHAUSTED where there is no room for it.
  static absl::StatusOr<std::unique_ptr<SharedMapping>> Map(int fd, size_t size);
  ~SharedMapping();
  SharedMapping(const SharedMapping&) = delete;
  SharedMapping& operator=(const SharedMapping&) = delete;

  std::byte* data() const { return data_; }
  size_t size() const { return size_; }
  bool lost() const { return lost_; }

 private:
  SharedMapping(std::byte* data, size_t size, const std::atomic<bool>& lost)
      : data_(data), size_(size), lost_(lost) {}

  std::byte* const data_;
  const size_t size_;
  const std::atomic<bool>& lost_;
};

}  // namespace gdn
