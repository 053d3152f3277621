// Answers a step with its own message: one `output` around the bytes that came, so that every
// client can parse the answer. What it takes is what gRPC and the client take.
#pragma once

#include <string>
#include <vector>

#include "gdn/v1/gdn_service.grpc.pb.h"
#include "google/protobuf/io/coded_stream.h"

namespace gdn {

inline grpc::ByteBuffer AsOutput(const grpc::ByteBuffer& message) {
  constexpr uint8_t kOutputTag = 15 << 3 | 2;
  uint8_t header[11] = {kOutputTag};
  const uint8_t* end =
      google::protobuf::io::CodedOutputStream::WriteVarint64ToArray(message.Length(), header + 1);
  std::vector<grpc::Slice> received, slices = {grpc::Slice(header, end - header)};
  if (!message.Dump(&received).ok()) return {};
  slices.insert(slices.end(), received.begin(), received.end());
  return {slices.data(), slices.size()};
}

class EchoService : public v1::GdnService::WithRawCallbackMethod_Prefill<
                        v1::GdnService::WithRawCallbackMethod_Decode<v1::GdnService::Service>> {
  grpc::ServerUnaryReactor* Prefill(grpc::CallbackServerContext* context,
                                    const grpc::ByteBuffer* request,
                                    grpc::ByteBuffer* response) override {
    return Echo(context, request, response);
  }
  grpc::ServerUnaryReactor* Decode(grpc::CallbackServerContext* context,
                                   const grpc::ByteBuffer* request,
                                   grpc::ByteBuffer* response) override {
    return Echo(context, request, response);
  }

  static grpc::ServerUnaryReactor* Echo(grpc::CallbackServerContext* context,
                                        const grpc::ByteBuffer* request,
                                        grpc::ByteBuffer* response) {
    *response = AsOutput(*request);
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }
};

}  // namespace gdn
