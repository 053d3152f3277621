// Memory shared with a server on this machine.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "client/cpp/error.h"
#include "gdn/v1/shared_memory_service.grpc.pb.h"
#include "grpcpp/channel.h"

namespace gdn::client {

// A POSIX object of this process, registered under its own name; nobody else can open it once it
// is.
class Region {
 public:
  // `prefix` is the server's --shared_memory_prefix.
  static Error Create(const std::shared_ptr<grpc::Channel>& channel, size_t size,
                      std::unique_ptr<Region>* region, const std::string& prefix = "gdn");
  // Unregisters it, and so waits for the steps that use it; a ring in it is to be gone before.
  ~Region();

  const std::string& name() const { return name_; }
  std::byte* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  Region(const std::shared_ptr<grpc::Channel>& channel, std::string name, size_t size);

  const std::unique_ptr<v1::SharedMemoryService::Stub> stub_;
  const std::string name_;
  const size_t size_;
  std::byte* data_ = nullptr;
  bool registered_ = false;
};

}  // namespace gdn::client
