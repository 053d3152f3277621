#include "server/service/shared_memory/region.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace gdn {
namespace {

constexpr uint64_t kStatBlock = 512;  // what st_blocks counts, whatever the file system

Fault Unsupported(std::string_view what) {
  return FaultOf(v1::ERROR_REASON_UNSUPPORTED, std::string(what));
}

Fault TooSmall(uint64_t wanted, uint64_t there) {
  Fault fault =
      FaultOf(v1::ERROR_REASON_INPUT_SIZE_MISMATCH,
              absl::StrCat("byte_size is ", wanted, ", the object has ", there, " bytes."));
  fault.metadata = {{"expected_bytes", absl::StrCat(wanted)},
                    {"actual_bytes", absl::StrCat(there)}};
  return fault;
}

// A leading slash may be left out, as shm_open's callers do; there is no other.
bool IsAllowed(std::string_view name, std::string_view prefix) {
  const absl::string_view bare = absl::StripPrefix({name.data(), name.size()}, "/");
  const absl::string_view begin = absl::StripPrefix({prefix.data(), prefix.size()}, "/");
  return !bare.empty() && absl::StartsWith(bare, begin) && bare != "." && bare != ".." &&
         bare.find('/') == absl::string_view::npos && bare.find('\0') == absl::string_view::npos;
}

Fault FromErrno(int error) {
  switch (error) {
    case ENOENT:
      return FaultOf(v1::ERROR_REASON_REGION_NOT_FOUND, "There is no such POSIX object.");
    case EACCES:
    case EPERM:
      return FaultOf(v1::ERROR_REASON_REGION_DENIED, "The object's mode keeps the server out.");
    default:
      return Unsupported(absl::StrCat("The object cannot be opened: ", std::strerror(error), "."));
  }
}

}  // namespace

// The open object.
class Region::File {
 public:
  explicit File(int fd) : fd_(fd) {}
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File() { close(fd_); }

  int fd() const { return fd_; }
  // Zeros where it cannot be said.
  struct stat Stat() const {
    struct stat stat = {};
    if (fstat(fd_, &stat) != 0) stat = {};
    return stat;
  }

 private:
  const int fd_;
};

Region::Region(uint64_t size) : size_(size) {}

Region::~Region() {
  device_.reset();
  mapping_.reset();
  file_.reset();
  for (const auto& on_gone : on_gone_) on_gone();
}

Fault Region::OpenPosix(std::string_view name, uint64_t size, std::string_view prefix,
                        DeviceMemoryOpener* opener, std::shared_ptr<Region>* region) {
  if (!IsAllowed(name, prefix)) {
    return FaultOf(
        v1::ERROR_REASON_REGION_DENIED,
        absl::StrCat("The name does not begin with \"",
                     absl::string_view(prefix.data(), prefix.size()), "\", or has a slash in it."));
  }
  const std::string path = absl::StartsWith({name.data(), name.size()}, "/")
                               ? std::string(name)
                               : absl::StrCat("/", absl::string_view(name.data(), name.size()));
  const int fd = shm_open(path.c_str(), O_RDWR, 0);
  if (fd < 0) return FromErrno(errno);
  std::shared_ptr<Region> opened(new Region(size));
  opened->file_ = std::make_unique<File>(fd);
  const struct stat stat = opened->file_->Stat();
  if (!S_ISREG(stat.st_mode)) return Unsupported("The object is no memory.");
  const auto there = static_cast<uint64_t>(stat.st_size);
  if (size == 0 || size > there) return TooSmall(size, there);

  auto mapping = SharedMapping::Map(fd, size);
  if (!mapping.ok()) return Unsupported(mapping.status().message().data());
  opened->mapping_ = *std::move(mapping);
  // To pin pages that are not there yet would make them: memory that its owner has not paid for.
  if (opener != nullptr && static_cast<uint64_t>(stat.st_blocks) * kStatBlock >= size) {
    auto device = opener->Pin({opened->host(), size});
    if (device.ok()) opened->device_ = *std::move(device);  // else it is copied by the host
  }
  *region = std::move(opened);
  return {};
}

Fault Region::OpenIpc(std::string_view handle, uint64_t size, DeviceMemoryOpener* opener,
                      std::shared_ptr<Region>* region) {
  if (opener == nullptr) return Unsupported("The server's backend has no device memory.");
  if (size == 0) return TooSmall(size, 0);
  auto device = opener->OpenIpc(handle, size);
  if (absl::IsOutOfRange(device.status())) {
    return FaultOf(v1::ERROR_REASON_INPUT_SIZE_MISMATCH, std::string(device.status().message()));
  }
  if (!device.ok()) return Unsupported(std::string(device.status().message()));
  std::shared_ptr<Region> opened(new Region(size));
  opened->device_ = *std::move(device);
  *region = std::move(opened);
  return {};
}

uint64_t Region::present() const {
  if (mapping_ == nullptr) return size_;
  if (mapping_->lost()) return 0;
  return std::min(size_, static_cast<uint64_t>(file_->Stat().st_size));
}

}  // namespace gdn
