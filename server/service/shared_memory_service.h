// gdn.v1.SharedMemoryService, for a server that allows it.
#pragma once

#include "gdn/v1/shared_memory_service.grpc.pb.h"
#include "server/service/hosted.h"

namespace gdn {

using RawSharedMemoryService = v1::SharedMemoryService::WithRawCallbackMethod_RegisterSharedMemory<
    v1::SharedMemoryService::WithRawCallbackMethod_UnregisterSharedMemory<
        v1::SharedMemoryService::WithRawCallbackMethod_ServeRing<
            v1::SharedMemoryService::Service>>>;

class SharedMemoryService final : public RawSharedMemoryService {
 public:
  explicit SharedMemoryService(const Readiness& readiness) : readiness_(readiness) {}

  grpc::ServerUnaryReactor* RegisterSharedMemory(grpc::CallbackServerContext* context,
                                                 const grpc::ByteBuffer* request,
                                                 grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* UnregisterSharedMemory(grpc::CallbackServerContext* context,
                                                   const grpc::ByteBuffer* request,
                                                   grpc::ByteBuffer* response) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* ServeRing(grpc::CallbackServerContext* context,
                                                        const grpc::ByteBuffer* request) override;

 private:
  const Readiness& readiness_;
};

}  // namespace gdn
