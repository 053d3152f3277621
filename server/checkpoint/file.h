// A regular file, read by offset.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace gdn {

// Read, not mapped: a file cut short by somebody else is an error here and not a SIGBUS, and what
// was read never counts as resident. Errors (FAILED_PRECONDITION) begin with the path.
class File {
 public:
  // Follows symbolic links. Refuses whatever is not a regular file.
  static absl::StatusOr<File> Open(const std::string& path);

  File(File&& other) noexcept;
  File& operator=(File&&) = delete;
  ~File();

  const std::string& path() const { return path_; }
  uint64_t size() const { return size_; }  // when it was opened

  // Fills `out` from the bytes at `offset`, or fails.
  absl::Status Read(uint64_t offset, std::span<std::byte> out) const;

 private:
  File(std::string path, int descriptor, uint64_t size);

  std::string path_;
  int descriptor_;
  uint64_t size_;
};

// The whole file, if it has at most `limit` bytes.
absl::StatusOr<std::string> ReadWhole(const std::string& path, uint64_t limit);

}  // namespace gdn
