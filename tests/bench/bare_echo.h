// What the wire alone costs: a Decode that sends back what came.
#pragma once

#include "gdn/v1/gdn_service.grpc.pb.h"

namespace gdn {

class BareEcho : public v1::GdnService::WithRawCallbackMethod_Decode<v1::GdnService::Service> {
  grpc::ServerUnaryReactor* Decode(grpc::CallbackServerContext* context,
                                   const grpc::ByteBuffer* request,
                                   grpc::ByteBuffer* response) override {
    *response = *request;
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }
};

}  // namespace gdn
