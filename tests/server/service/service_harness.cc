#include "tests/server/service/service_harness.h"

#include <stdlib.h>

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/security/credentials.h"
#include "server/service/transport.h"

namespace gdn::test {

ServiceHarness::ServiceHarness(bool shared_memory, int depth)
    : shared_memory_(shared_memory), backend_(FakeShape(), depth) {
  std::string folder = absl::StrCat(::testing::TempDir(), "/gdn_XXXXXX");
  folder_ = mkdtemp(folder.data());
  readiness_.instance_id = "instance";
  auto server =
      GrpcServer::Start(readiness_, {.addresses = {absl::StrCat("unix:", folder_, "/socket")},
                                     .limits = {.message_bytes = kMaxMessageBytes},
                                     .reflection = true,
                                     .shared_memory = shared_memory});
  EXPECT_TRUE(server.ok()) << server.status();
  server_ = *std::move(server);
  channel_ = NewChannel();
  gdn_ = v1::GdnService::NewStub(channel_);
  sequences_ = v1::SequenceService::NewStub(channel_);
}

ServiceHarness::~ServiceHarness() {
  backend_.OpenGate();
  EndEngine();
  server_->Shutdown(absl::Seconds(10));
  std::filesystem::remove_all(folder_);
}

void ServiceHarness::Host() {
  const BackendShape shape = FakeShape();
  EngineOptions options;
  options.layers = {3, 7};
  options.shape = shape;
  options.max_queue_steps = kMaxQueueSteps;
  options.max_queue_rows = max_queue_rows_;
  options.max_queue_bytes = 1 << 20;
  options.replay_bytes = 1 << 10;
  options.step_ttl = absl::Minutes(10);
  options.prefill_max_wait = absl::Minutes(1);
  options.on_device_lost = [this] { server_->SetServing(false); };
  options.observer = &meter_;
  engine_ = std::make_unique<Engine>(std::move(options), &backend_);
  thread_ = std::make_unique<EngineThread>(engine_.get());
  hosted_.info.set_instance_id(readiness_.instance_id);
  hosted_.info.set_slots(static_cast<uint32_t>(shape.slots));
  hosted_.limits = {.geometry = shape.geometry,
                    .io = shape.io,
                    .layers = {3, 7},
                    .projections = true,
                    .slots = static_cast<uint32_t>(shape.slots),
                    .max_rows = static_cast<uint32_t>(shape.max_rows),
                    .max_tokens = static_cast<uint64_t>(shape.max_tokens),
                    .max_decode_tokens = static_cast<uint32_t>(shape.max_decode_tokens),
                    .allow_shared_memory = shared_memory_};
  hosted_.rules = {readiness_.instance_id, absl::Minutes(10), absl::Hours(1)};
  hosted_.engine = engine_.get();
  hosted_.regions = &regions_;
  readiness_.hosted = &hosted_;
  server_->SetServing(true);
}

std::shared_ptr<grpc::Channel> ServiceHarness::NewChannel() const {
  grpc::ChannelArguments arguments;
  TuneChannel(&arguments);
  return NewChannel(arguments);
}

std::shared_ptr<grpc::Channel> ServiceHarness::NewChannel(grpc::ChannelArguments arguments) const {
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel(server_->addresses()[0], grpc::InsecureChannelCredentials(),
                                   arguments);
}

v1::DecodeRequest ServiceHarness::ById(const std::vector<std::string>& ids,
                                       std::initializer_list<float> tokens, bool create) {
  v1::DecodeRequest request;
  request.set_layer(3);
  request.mutable_batch()->set_data_type(v1::DATA_TYPE_FP32);
  request.mutable_batch()->set_create(create);
  for (const std::string& id : ids) request.mutable_batch()->add_request_ids(id);
  request.set_input(Hidden(tokens));
  return request;
}

v1::DecodeRequest ServiceHarness::BySlot(const v1::DecodeResponse& begun,
                                         std::initializer_list<float> tokens) {
  v1::DecodeRequest request = ById({}, tokens);
  *request.mutable_batch()->mutable_slots() = begun.slots();
  *request.mutable_batch()->mutable_epochs() = begun.epochs();
  return request;
}

grpc::Status ServiceHarness::Decode(const v1::DecodeRequest& request,
                                    v1::DecodeResponse* response) {
  grpc::ClientContext context;
  v1::DecodeResponse ignored;
  return gdn_->Decode(&context, request, response == nullptr ? &ignored : response);
}

grpc::Status ServiceHarness::Raw(const std::string& method, std::string_view bytes,
                                 std::string* response) {
  grpc::GenericStub stub(channel_);
  grpc::ClientContext context;
  if (!authorization_.empty()) context.AddMetadata("authorization", authorization_);
  const grpc::Slice slice(bytes.data(), bytes.size());
  const grpc::ByteBuffer request(&slice, 1);
  grpc::ByteBuffer answer;
  std::promise<grpc::Status> done;
  stub.UnaryCall(&context, method, grpc::StubOptions(), &request, &answer,
                 [&done](grpc::Status status) { done.set_value(std::move(status)); });
  const grpc::Status status = done.get_future().get();
  grpc::Slice whole;
  if (status.ok() && response != nullptr && answer.DumpToSingleSlice(&whole).ok()) {
    response->assign(reinterpret_cast<const char*>(whole.begin()), whole.size());
  }
  return status;
}

std::future<grpc::Status> ServiceHarness::BlockEngine() {
  backend_.CloseGate();
  auto blocked = std::async(std::launch::async,
                            [this] { return Decode(ById({"blocker"}, {1}, /*create=*/true)); });
  backend_.AwaitBlocked();
  return blocked;
}

uint64_t ServiceHarness::PositionOf(const std::string& id) {
  grpc::ClientContext context;
  v1::GetSequenceRequest request;
  v1::GetSequenceResponse response;
  request.set_request_id(id);
  const grpc::Status status = sequences_->GetSequence(&context, request, &response);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return status.ok() ? response.sequence().positions(0) : ~uint64_t{0};
}

google::rpc::Status DetailsOf(const grpc::Status& status) {
  google::rpc::Status details;
  EXPECT_TRUE(details.ParseFromString(status.error_details()));
  return details;
}

std::string ReasonOf(const google::rpc::Status& status) {
  return DetailOf<google::rpc::ErrorInfo>(status).reason();
}

std::string ReasonOf(const grpc::Status& status) { return ReasonOf(DetailsOf(status)); }

std::vector<std::string> HostileMessages() {
  return {
      std::string("\x12", 1),  // a tag and no length
      std::string("\x0a\x05"
                  "abc",
                  5),                                                   // cut short
      std::string("\x0a\xff\xff\xff\xff\x0f", 6),                       // a length beyond all bytes
      std::string("\x00\x01", 2),                                       // field 0
      std::string("\x0f\x01", 2),                                       // wire type 7
      std::string("\x0c", 1),                                           // the end of no group
      std::string("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 11),  // an endless varint
      std::string(200, '\x7b'),                                         // groups in groups
  };
}

}  // namespace gdn::test
