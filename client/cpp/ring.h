// Steps posted in shared memory instead of sent (gdn.v1.Ring).
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <thread>

#include "client/cpp/error.h"
#include "client/cpp/region.h"

namespace gdn::client {

// For one thread at a time. At the start of its region: what tensors may use lies behind begin().
class Ring {
 public:
  // Bytes that a ring with queues of these sizes takes.
  static size_t BytesOf(size_t request_bytes, size_t response_bytes);
  // The region, at least that large, outlives the ring and has no other in it.
  static Error Open(const std::shared_ptr<grpc::Channel>& channel, const Region& region,
                    size_t request_bytes, size_t response_bytes, std::unique_ptr<Ring>* ring);
  // Ends it; steps without an answer may or may not commit.
  ~Ring();

  // Posts a StreamRequest, serialized; its step names shared memory. False where there is no room:
  // take an answer first.
  bool Post(std::string_view request);
  // Waits for the next StreamResponse; false where none comes in time or the ring has ended. Looks
  // for a while before it sleeps.
  bool Receive(std::string* response, std::chrono::milliseconds timeout);
  // Why the ring has ended; REQUIRES that Receive was false before its time.
  Error EndOf();

 private:
  struct Words;
  // A queue and where this side is in it.
  struct Queue {
    std::byte* data = nullptr;
    size_t size = 0;
    uint64_t at = 0;

    void CopyIn(uint64_t at, const void* from, size_t n) const;
    void CopyOut(uint64_t at, void* to, size_t n) const;
  };

  Ring(const std::shared_ptr<grpc::Channel>& channel, const Region& region, size_t request_bytes,
       size_t response_bytes);
  // Waits for the end of the call.
  void Watch();
  bool TakeNext(std::string* response);

  const std::unique_ptr<v1::SharedMemoryService::Stub> stub_;
  Words* const words_;
  Queue requests_;
  Queue responses_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<v1::ServeRingResponse>> call_;
  std::thread watcher_;
  std::atomic<bool> over_ = false;
  Error end_;
};

}  // namespace gdn::client
