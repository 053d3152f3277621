#include "client/cpp/client.h"

#include <google/protobuf/wrappers.pb.h>

#include <fstream>
#include <iterator>
#include <utility>

#include "grpcpp/completion_queue.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/support/client_interceptor.h"

namespace gdn::client {

namespace {

using grpc::experimental::ClientInterceptorFactoryInterface;
using grpc::experimental::CreateCustomChannelWithInterceptors;
using grpc::experimental::InterceptionHookPoints;

// Adds the bearer token to a call.
class Bearer : public grpc::experimental::Interceptor {
 public:
  explicit Bearer(const std::string& token) : token_(token) {}

  void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
    if (methods->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_SEND_INITIAL_METADATA)) {
      methods->GetSendInitialMetadata()->insert({"authorization", "Bearer " + token_});
    }
    methods->Proceed();
  }

 private:
  const std::string& token_;
};

class BearerFactory : public ClientInterceptorFactoryInterface {
 public:
  explicit BearerFactory(std::string token) : token_(std::move(token)) {}

  grpc::experimental::Interceptor* CreateClientInterceptor(
      grpc::experimental::ClientRpcInfo*) override {
    return new Bearer(token_);
  }

 private:
  const std::string token_;
};

std::string ReadFile(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::shared_ptr<grpc::ChannelCredentials> CredentialsOf(const Tls& tls) {
  grpc::SslCredentialsOptions options;
  options.pem_root_certs = ReadFile(tls.ca);
  options.pem_cert_chain = ReadFile(tls.cert);
  options.pem_private_key = ReadFile(tls.key);
  return grpc::SslCredentials(options);
}

}  // namespace

std::shared_ptr<grpc::Channel> Connect(const std::string& target, const std::optional<Tls>& tls,
                                       const std::string& token) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  arguments.SetMaxSendMessageSize(-1);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_FRAME_SIZE, 1 << 20);
  arguments.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 16 << 20);
  arguments.SetInt(GRPC_ARG_TCP_READ_CHUNK_SIZE, 64 << 10);
  arguments.SetInt(GRPC_ARG_TCP_MIN_READ_CHUNK_SIZE, 64 << 10);
  arguments.SetInt(GRPC_ARG_TCP_MAX_READ_CHUNK_SIZE, 4 << 20);
  if (tls && !tls->server_name.empty()) arguments.SetSslTargetNameOverride(tls->server_name);
  const auto credentials = tls ? CredentialsOf(*tls) : grpc::InsecureChannelCredentials();
  if (token.empty()) return grpc::CreateCustomChannel(target, credentials, arguments);
  std::vector<std::unique_ptr<ClientInterceptorFactoryInterface>> factories;
  factories.push_back(std::make_unique<BearerFactory>(token));
  return CreateCustomChannelWithInterceptors(target, credentials, arguments, std::move(factories));
}

Client::Client(std::shared_ptr<grpc::Channel> channel, std::chrono::milliseconds timeout)
    : channel_(std::move(channel)),
      timeout_(timeout),
      gdn_(v1::GdnService::NewStub(channel_)),
      sequences_(v1::SequenceService::NewStub(channel_)) {}

void Client::SetDeadline(grpc::ClientContext* context) const {
  context->set_deadline(std::chrono::system_clock::now() + timeout_);
}

Error Client::Info(v1::GetServerInfoResponse* info) {
  grpc::ClientContext context;
  SetDeadline(&context);
  return DecodeError(gdn_->GetServerInfo(&context, {}, info));
}

Error Client::Get(const std::string& request_id, v1::Sequence* sequence) {
  grpc::ClientContext context;
  SetDeadline(&context);
  v1::GetSequenceRequest request;
  request.set_request_id(request_id);
  v1::GetSequenceResponse response;
  Error error = DecodeError(sequences_->GetSequence(&context, request, &response));
  if (error.ok()) *sequence = std::move(*response.mutable_sequence());
  return error;
}

Error Client::List(std::vector<v1::Sequence>* sequences) {
  std::vector<v1::Sequence> all;
  v1::ListSequencesRequest request;
  do {
    grpc::ClientContext context;
    SetDeadline(&context);
    v1::ListSequencesResponse page;
    Error error = DecodeError(sequences_->ListSequences(&context, request, &page));
    if (!error.ok()) return error;
    for (v1::Sequence& sequence : *page.mutable_sequences()) all.push_back(std::move(sequence));
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  *sequences = std::move(all);
  return {};
}

Error Client::Release(const v1::ReleaseSequencesRequest& request) {
  grpc::ClientContext context;
  SetDeadline(&context);
  v1::ReleaseSequencesResponse response;
  return DecodeError(sequences_->ReleaseSequences(&context, request, &response));
}

Error Client::Renew(const v1::RenewSequencesRequest& request,
                    v1::RenewSequencesResponse* response) {
  grpc::ClientContext context;
  SetDeadline(&context);
  return DecodeError(sequences_->RenewSequences(&context, request, response));
}

Error Client::CheckHealth(const std::string& service, Health* health) {
  // On the wire HealthCheckRequest {string service = 1} and HealthCheckResponse {enum status = 1}
  // are these; gRPC installs no header for its own.
  google::protobuf::StringValue request;
  request.set_value(service);
  google::protobuf::Int32Value response;
  Error error = DecodeError(Call("/grpc.health.v1.Health/Check", request, &response));
  if (error.ok()) *health = static_cast<Health>(response.value());
  return error;
}

template <typename Request, typename Response>
grpc::Status Client::Call(const std::string& method, const Request& request,
                          Response* response) const {
  grpc::ClientContext context;
  SetDeadline(&context);
  grpc::CompletionQueue queue;
  grpc::TemplatedGenericStub<Request, Response> stub(channel_);
  const auto call = stub.PrepareUnaryCall(&context, method, request, &queue);
  grpc::Status status;
  call->StartCall();
  call->Finish(response, &status, &queue);
  void* tag;
  bool ok;
  queue.Next(&tag, &ok);
  return status;
}

Error Client::Step(const std::string& method, const std::string& request, const grpc::Slice& input,
                   StepAnswer* answer) const {
  grpc::ByteBuffer response;
  Error error = DecodeError(Call(method, EncodeStep(request, input), &response));
  if (!error.ok()) return error;
  StepAnswer decoded;
  if (!DecodeAnswer(&response, &decoded)) {
    error.code = grpc::INTERNAL;
    error.message = "The answer to " + method + " does not parse.";
    return error;
  }
  *answer = std::move(decoded);
  return error;
}

Error Client::Prefill(const v1::PrefillRequest& request, const grpc::Slice& input,
                      StepAnswer* answer) {
  return PrefillSerialized(request.SerializeAsString(), input, answer);
}

Error Client::Decode(const v1::DecodeRequest& request, const grpc::Slice& input,
                     StepAnswer* answer) {
  return DecodeSerialized(request.SerializeAsString(), input, answer);
}

Error Client::PrefillSerialized(const std::string& request, const grpc::Slice& input,
                                StepAnswer* answer) {
  return Step("/gdn.v1.GdnService/Prefill", request, input, answer);
}

Error Client::DecodeSerialized(const std::string& request, const grpc::Slice& input,
                               StepAnswer* answer) {
  return Step("/gdn.v1.GdnService/Decode", request, input, answer);
}

}  // namespace gdn::client
