// gdn.v1.GdnService: every method raw, so that what does not parse is answered in our own terms.
#pragma once

#include "gdn/v1/gdn_service.grpc.pb.h"
#include "server/service/hosted.h"

namespace gdn {

using RawGdnService = v1::GdnService::WithRawCallbackMethod_GetServerInfo<
    v1::GdnService::WithRawCallbackMethod_Prefill<v1::GdnService::WithRawCallbackMethod_Decode<
        v1::GdnService::WithRawCallbackMethod_Stream<v1::GdnService::Service>>>>;

class GdnService final : public RawGdnService {
 public:
  explicit GdnService(const Readiness& readiness) : readiness_(readiness) {}

  grpc::ServerUnaryReactor* GetServerInfo(grpc::CallbackServerContext* context,
                                          const grpc::ByteBuffer* request,
                                          grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* Prefill(grpc::CallbackServerContext* context,
                                    const grpc::ByteBuffer* request,
                                    grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* Decode(grpc::CallbackServerContext* context,
                                   const grpc::ByteBuffer* request,
                                   grpc::ByteBuffer* response) override;
  grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* Stream(
      grpc::CallbackServerContext* context) override;

 private:
  const Readiness& readiness_;
};

}  // namespace gdn
