// One call at a time on a connection of its own.
#pragma once

#include <memory>
#include <string>

#include "grpcpp/create_channel.h"
#include "grpcpp/generic/generic_stub.h"
#include "server/service/transport.h"
#include "tests/bench/planes_board.h"
#include "tests/bench/planes_patience.h"

namespace gdn {

inline std::shared_ptr<grpc::Channel> Connect(const std::string& address) {
  grpc::ChannelArguments arguments;
  TuneChannel(&arguments);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

class Caller {
 public:
  explicit Caller(const AddressText& address) : stub_(Connect(address.data())) {}

  grpc::ByteBuffer Call(const char* method, const grpc::ByteBuffer& request, Patience patience) {
    grpc::ClientContext context;
    grpc::ByteBuffer response;
    grpc::Status status;
    auto call = stub_.PrepareUnaryCall(&context, method, request, &queue_);
    call->StartCall();
    call->Finish(&response, &status, this);
    if (!Await(patience, &queue_) || !status.ok()) Fail(status.error_message());
    return response;
  }

 private:
  grpc::GenericStub stub_;
  grpc::CompletionQueue queue_;
};

}  // namespace gdn
