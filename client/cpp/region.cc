#include "client/cpp/region.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

namespace gdn::client {
namespace {

// Of this process and moment: another server's clients may use the same names.
std::string NewName(const std::string& prefix) {
  static std::atomic<int> count = 0;
  const auto now = std::chrono::system_clock::now().time_since_epoch().count();
  return prefix + "-" + std::to_string(getpid()) + "-" + std::to_string(now) + "-" +
         std::to_string(++count);
}

Error FromErrno(const char* what) {
  Error error;
  error.code = grpc::INTERNAL;
  error.message = std::string(what) + ": " + std::strerror(errno);
  return error;
}

// Maps a new object whose pages are all there.
std::byte* MakeObject(const std::string& path, size_t size) {
  const int fd = shm_open(path.c_str(), O_RDWR | O_CREAT | O_EXCL, 0600);
  if (fd < 0) return nullptr;
  errno = posix_fallocate(fd, 0, static_cast<off_t>(size));
  void* data =
      errno == 0 ? mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
  close(fd);
  return data == MAP_FAILED ? nullptr : static_cast<std::byte*>(data);
}

}  // namespace

Region::Region(const std::shared_ptr<grpc::Channel>& channel, std::string name, size_t size)
    : stub_(v1::SharedMemoryService::NewStub(channel)), name_(std::move(name)), size_(size) {}

Error Region::Create(const std::shared_ptr<grpc::Channel>& channel, size_t size,
                     std::unique_ptr<Region>* region, const std::string& prefix) {
  std::unique_ptr<Region> created(new Region(channel, NewName(prefix), size));
  const std::string path = "/" + created->name_;
  created->data_ = MakeObject(path, size);
  if (created->data_ == nullptr) {
    Error error = FromErrno("shared memory");
    shm_unlink(path.c_str());
    return error;
  }
  grpc::ClientContext context;
  v1::RegisterSharedMemoryRequest request;
  request.set_region(created->name_);
  request.set_posix_name(path);
  request.set_byte_size(size);
  v1::RegisterSharedMemoryResponse response;
  Error error = DecodeError(created->stub_->RegisterSharedMemory(&context, request, &response));
  shm_unlink(path.c_str());
  created->registered_ = error.ok();
  if (error.ok()) *region = std::move(created);
  return error;
}

Region::~Region() {
  if (registered_) {
    grpc::ClientContext context;
    v1::UnregisterSharedMemoryRequest request;
    request.set_region(name_);
    v1::UnregisterSharedMemoryResponse response;
    stub_->UnregisterSharedMemory(&context, request, &response);
  }
  if (data_ != nullptr) munmap(data_, size_);
}

}  // namespace gdn::client
