// What the service adds to the wire: a Decode of 128 rows at hidden 2048 in bf16 (512 KiB each way)
// through the whole server with a backend that computes nothing, against a bare echo of the same
// bytes with the same channel arguments, and against protobuf and gRPC as they come. Calls to the
// three alternate, one at a time, over a Unix socket.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "grpcpp/create_channel.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/server_builder.h"
#include "server/allocator.h"
#include "server/service/message.h"
#include "server/service/transport.h"
#include "tests/bench/bare_echo.h"
#include "tests/bench/null_server.h"

namespace gdn {
namespace {

constexpr int kRows = 128;
constexpr int kWarmUp = 200;
constexpr int kCalls = 3000;

const BackendShape kShape = NullShape(/*slots=*/kRows);
const size_t kTensorBytes = size_t{kRows} * static_cast<size_t>(kShape.geometry.hidden_size) * 2;

using Clock = std::chrono::steady_clock;
using ProtobufDecode = v1::GdnService::WithCallbackMethod_Decode<v1::GdnService::Service>;

// BareEcho with generated messages.
class ProtobufEcho : public ProtobufDecode {
  grpc::ServerUnaryReactor* Decode(grpc::CallbackServerContext* context,
                                   const v1::DecodeRequest* request,
                                   v1::DecodeResponse* response) override {
    response->set_output(request->input());
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }
};

std::unique_ptr<grpc::Server> StartEcho(const std::string& address, grpc::Service* service,
                                        bool tuned) {
  grpc::ServerBuilder builder;
  if (tuned) {
    TuneServer({.message_bytes = 64 << 20}, &builder);
  } else {
    builder.SetMaxReceiveMessageSize(64 << 20);
  }
  builder.AddListeningPort(address, grpc::InsecureServerCredentials());
  builder.RegisterService(service);
  return builder.BuildAndStart();
}

// A caller of one server, one call at a time.
class Caller {
 public:
  Caller(const std::string& address, bool tuned) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    if (tuned) {
      TuneChannel(&arguments);
    } else {
      arguments.SetMaxReceiveMessageSize(-1);
    }
    channel_ = grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
    raw_ = std::make_unique<grpc::GenericStub>(channel_);
    stub_ = v1::GdnService::NewStub(channel_);
  }

  grpc::ByteBuffer Raw(const grpc::ByteBuffer& request) {
    grpc::ClientContext context;
    grpc::ByteBuffer response;
    grpc::Status status;
    auto call = raw_->PrepareUnaryCall(&context, "/gdn.v1.GdnService/Decode", request, &queue_);
    call->StartCall();
    call->Finish(&response, &status, this);
    Wait(status);
    return response;
  }

  void Protobuf(const v1::DecodeRequest& request) {
    grpc::ClientContext context;
    v1::DecodeResponse response;
    grpc::Status status;
    auto call = stub_->PrepareAsyncDecode(&context, request, &queue_);
    call->StartCall();
    call->Finish(&response, &status, this);
    Wait(status);
  }

 private:
  void Wait(const grpc::Status& status) {
    void* tag = nullptr;
    bool ok = false;
    if (queue_.Next(&tag, &ok) && status.ok()) return;
    std::fprintf(stderr, "wire_bench: %s\n", status.error_message().c_str());
    std::exit(1);
  }

  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<grpc::GenericStub> raw_;
  std::unique_ptr<v1::GdnService::Stub> stub_;
  grpc::CompletionQueue queue_;
};

v1::DecodeRequest FirstRequest() {
  v1::DecodeRequest request;
  request.mutable_batch()->set_data_type(v1::DATA_TYPE_BF16);
  request.mutable_batch()->set_create(true);
  for (int row = 0; row < kRows; ++row) {
    request.mutable_batch()->add_request_ids("request-" + std::to_string(row));
    request.mutable_batch()->add_token_counts(0);
  }
  return request;
}

// The fast form: slots and epochs of the sequences that `first` began, one step after the other.
v1::DecodeRequest FastRequest(const v1::DecodeResponse& first) {
  v1::DecodeRequest request;
  request.mutable_batch()->set_data_type(v1::DATA_TYPE_BF16);
  request.mutable_batch()->mutable_slots()->CopyFrom(first.slots());
  request.mutable_batch()->mutable_epochs()->CopyFrom(first.epochs());
  request.set_input(std::string(kTensorBytes, '\0'));
  return request;
}

// As a client writes it: the header's few bytes, and the tensor as it is.
grpc::ByteBuffer InTwoSlices(v1::DecodeRequest request, uint64_t step_id) {
  const std::string tensor = std::move(*request.mutable_input());
  request.clear_input();
  request.mutable_batch()->set_step_id(step_id);
  const std::string header = request.SerializeAsString() + std::string("\x7a\x80\x80\x20", 4);
  const grpc::Slice slices[2] = {grpc::Slice(header), grpc::Slice(tensor)};
  return {slices, 2};
}

double TimeOf(const auto& call) {
  const Clock::time_point begin = Clock::now();
  call();
  return std::chrono::duration<double, std::micro>(Clock::now() - begin).count();
}

double Percentile(std::vector<double>* times, double p) {
  std::sort(times->begin(), times->end());
  return (*times)[static_cast<size_t>(p * static_cast<double>(times->size() - 1))];
}

void Print(const char* name, std::vector<double>* times, double base) {
  const double p50 = Percentile(times, 0.5);
  std::printf("%-44s %9.1f %9.1f %9.1f %9.2f\n", name, p50, Percentile(times, 0.9),
              Percentile(times, 0.99), p50 / base);
}

int Main() {
  TuneAllocator();
  TuneProcess();
  const std::string prefix = "unix:/tmp/gdn_wire_bench_" + std::to_string(getpid());
  NullServer null_server(kShape, {prefix + "_service"}, /*reflection=*/false);
  BareEcho bare_echo;
  const auto bare = StartEcho(prefix + "_echo", &bare_echo, true);
  ProtobufEcho protobuf_echo;
  const auto protobuf = StartEcho(prefix + "_protobuf", &protobuf_echo, false);
  Caller to_service(prefix + "_service", true);
  Caller to_bare(prefix + "_echo", true);
  Caller to_protobuf(prefix + "_protobuf", false);

  v1::DecodeResponse first;
  Parse(to_service.Raw(Serialize(FirstRequest())), &first);
  const v1::DecodeRequest request = FastRequest(first);
  const grpc::ByteBuffer without_id = InTwoSlices(request, 0);
  std::vector<double> service, replayable, echo, proto;
  for (int i = -kWarmUp; i < kCalls; ++i) {
    const grpc::ByteBuffer with_id = InTwoSlices(request, static_cast<uint64_t>(i + kWarmUp + 1));
    const double times[4] = {
        TimeOf([&] { to_service.Raw(without_id); }), TimeOf([&] { to_bare.Raw(without_id); }),
        TimeOf([&] { to_service.Raw(with_id); }), TimeOf([&] { to_protobuf.Protobuf(request); })};
    if (i < 0) continue;
    service.push_back(times[0]);
    echo.push_back(times[1]);
    replayable.push_back(times[2]);
    proto.push_back(times[3]);
  }
  const double base = Percentile(&echo, 0.5);
  std::printf("wire_bench: Decode of %d rows, %zu KiB each way, Unix socket, %d calls each, us\n",
              kRows, kTensorBytes / 1024, kCalls);
  std::printf("%-44s %9s %9s %9s %9s\n", "", "p50", "p90", "p99", "p50/echo");
  Print("bare echo, tuned", &echo, base);
  Print("service, null backend", &service, base);
  Print("service, null backend, answers kept", &replayable, base);
  Print("protobuf echo, gRPC as it comes", &proto, base);
  return 0;
}

}  // namespace
}  // namespace gdn

int main() { return gdn::Main(); }
