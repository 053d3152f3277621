// What each way from a caller to the engine costs on one machine: a Decode of 1 and of 128 rows at
// hidden 2048 in bf16, answers kept for replay, one step at a time; with a backend that only
// copies, and in a CUDA build on a machine with a GPU with the CUDA backend. Calls go over a Unix
// socket; beside them an echo of an empty message and one of the same bytes. The ways alternate.
// `beside` is the median of what a step takes beside the backend, by the clock of its thread.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "client/cpp/region.h"
#include "client/cpp/ring.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/server_builder.h"
#include "server/service/message.h"
#include "server/service/transport.h"
#include "tests/bench/bare_echo.h"
#include "tests/bench/planes_server.h"
#include "tests/testing/null_backend.h"
#ifdef GDN_HAVE_CUDA
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/shared_memory.h"
#include "tests/testing/layer_case.h"
#endif

namespace gdn {
namespace {

constexpr int kMostRows = 128;
constexpr int kWarmUp = 300;
constexpr int kCalls = 3000;
constexpr size_t kQueue = 64 << 10;

const BackendShape kShape = NullShape(/*slots=*/2 * kMostRows);
const size_t kRowBytes = static_cast<size_t>(kShape.geometry.hidden_size) * 2;

using Clock = std::chrono::steady_clock;

double Microseconds(Clock::duration d) {
  return std::chrono::duration<double, std::micro>(d).count();
}

[[noreturn]] void Fail(const std::string& why) {
  std::fprintf(stderr, "planes_bench: %s\n", why.c_str());
  std::exit(1);
}

class Echo {
 public:
  explicit Echo(const std::string& address) {
    grpc::ServerBuilder builder;
    TuneServer({.message_bytes = 64 << 20}, &builder);
    builder.AddListeningPort(address, grpc::InsecureServerCredentials());
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
  }
  ~Echo() { server_->Shutdown(); }

 private:
  BareEcho service_;
  std::unique_ptr<grpc::Server> server_;
};

std::shared_ptr<grpc::Channel> Connect(const std::string& address) {
  grpc::ChannelArguments arguments;
  TuneChannel(&arguments);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

class Caller {
 public:
  explicit Caller(std::shared_ptr<grpc::Channel> channel) : stub_(std::move(channel)) {}

  grpc::ByteBuffer Decode(const grpc::ByteBuffer& request) {
    grpc::ClientContext context;
    grpc::ByteBuffer response;
    grpc::Status status;
    auto call = stub_.PrepareUnaryCall(&context, "/gdn.v1.GdnService/Decode", request, &queue_);
    call->StartCall();
    call->Finish(&response, &status, this);
    void* tag = nullptr;
    bool ok = false;
    if (!queue_.Next(&tag, &ok) || !status.ok()) Fail(status.error_message());
    return response;
  }

 private:
  grpc::GenericStub stub_;
  grpc::CompletionQueue queue_;
};

v1::DecodeRequest FirstRequest(int rows) {
  v1::DecodeRequest request;
  request.mutable_batch()->set_data_type(v1::DATA_TYPE_BF16);
  request.mutable_batch()->set_create(true);
  for (int row = 0; row < rows; ++row) {
    request.mutable_batch()->add_request_ids("rows-" + std::to_string(rows) + "-" +
                                             std::to_string(row));
    request.mutable_batch()->add_token_counts(0);
  }
  return request;
}

// The steps of one batch by all ways.
class Ways {
 public:
  Ways(int rows, const PlanesServer& server, Caller* caller, Caller* echo,
       const client::Region& region, client::Ring* ring)
      : server_(server), caller_(*caller), echo_(*echo), ring_(*ring) {
    v1::DecodeResponse first;
    Parse(caller_.Decode(Serialize(FirstRequest(rows))), &first);
    request_.mutable_batch()->set_data_type(v1::DATA_TYPE_BF16);
    request_.mutable_batch()->mutable_slots()->CopyFrom(first.slots());
    request_.mutable_batch()->mutable_epochs()->CopyFrom(first.epochs());
    tensor_.assign(static_cast<size_t>(rows) * kRowBytes, '\0');
    in_region_ = request_;
    const uint64_t input = client::Ring::BytesOf(kQueue, kQueue);
    in_region_.mutable_shared_memory()->set_region(region.name());
    in_region_.mutable_shared_memory()->set_input_offset(input);
    in_region_.mutable_shared_memory()->set_output_offset(input + tensor_.size());
  }

  void Measure() {
    const std::pair<const char*, std::function<void()>> ways[] = {
        {"echo, empty", [this] { echo_.Decode(ToByteBuffer("")); }},
        {"echo, same bytes", [this] { echo_.Decode(inline_); }},
        {"call, inline", [this] { caller_.Decode(inline_); }},
        {"call, shared memory", [this] { caller_.Decode(header_); }},
        {"ring", [this] { ThroughRing(); }}};
    std::vector<std::vector<double>> times(std::size(ways)), beside(std::size(ways));
    for (int i = -kWarmUp; i < kCalls; ++i) {
      for (size_t way = 0; way < std::size(ways); ++way) {
        Prepare();
        const Clock::time_point begin = Clock::now();
        ways[way].second();
        const double time = Microseconds(Clock::now() - begin);
        if (i < 0) continue;
        times[way].push_back(time);
        beside[way].push_back(way < 2 ? time : time - server_.backend().microseconds());
      }
    }
    for (size_t way = 0; way < std::size(ways); ++way) {
      Print(ways[way].first, &times[way], &beside[way]);
    }
  }

 private:
  // Each step has an id of its own; what the caller serialises is not timed, its copies are.
  void Prepare() {
    ++step_id_;
    request_.mutable_batch()->set_step_id(step_id_);
    in_region_.mutable_batch()->set_step_id(step_id_);
    std::string before = request_.SerializeAsString() + '\x7a';
    for (size_t n = tensor_.size();; n >>= 7) {
      before.push_back(static_cast<char>((n & 0x7f) | (n > 0x7f ? 0x80 : 0)));
      if (n <= 0x7f) break;
    }
    const grpc::Slice slices[2] = {grpc::Slice(before), grpc::Slice(tensor_)};
    inline_ = grpc::ByteBuffer(slices, 2);
    header_ = Serialize(in_region_);
    v1::StreamRequest posted;
    posted.set_tag(step_id_);
    *posted.mutable_decode() = in_region_;
    posted_ = posted.SerializeAsString();
  }

  void ThroughRing() {
    std::string answer;
    if (!ring_.Post(posted_) || !ring_.Receive(&answer, std::chrono::seconds(10))) {
      Fail("the ring has ended");
    }
    v1::StreamResponse response;
    response.ParseFromString(answer);
    if (!response.has_decode()) Fail(response.status().message());
  }

  static double Percentile(std::vector<double>* times, double p) {
    std::sort(times->begin(), times->end());
    return (*times)[static_cast<size_t>(p * static_cast<double>(times->size() - 1))];
  }

  void Print(const char* name, std::vector<double>* times, std::vector<double>* beside) const {
    std::printf("%6zu  %-22s %9.1f %9.1f %9.1f\n", tensor_.size() / kRowBytes, name,
                Percentile(times, 0.5), Percentile(times, 0.99), Percentile(beside, 0.5));
  }

  const PlanesServer& server_;
  Caller& caller_;
  Caller& echo_;
  client::Ring& ring_;
  v1::DecodeRequest request_;
  v1::DecodeRequest in_region_;
  std::string tensor_;
  uint64_t step_id_ = 0;
  grpc::ByteBuffer inline_;
  grpc::ByteBuffer header_;
  std::string posted_;
};

void MeasureAll(std::unique_ptr<Backend> backend, std::unique_ptr<DeviceMemoryOpener> opener) {
  const std::string prefix = "unix:/tmp/gdn_planes_bench_" + std::to_string(getpid());
  std::printf("backend %s\n", std::string(backend->name()).c_str());
  PlanesServer server(prefix + "_service", kShape, std::move(backend), std::move(opener));
  Echo echo_server(prefix + "_echo");
  const auto channel = Connect(prefix + "_service");
  Caller caller(channel);
  Caller echo(Connect(prefix + "_echo"));
  std::unique_ptr<client::Region> region;
  std::unique_ptr<client::Ring> ring;
  const size_t tensors = 2 * kMostRows * kRowBytes;
  client::Error error =
      client::Region::Create(channel, client::Ring::BytesOf(kQueue, kQueue) + tensors, &region);
  if (error.ok()) error = client::Ring::Open(channel, *region, kQueue, kQueue, &ring);
  if (!error.ok()) Fail(client::ToString(error));
  for (const int rows : {1, kMostRows}) {
    Ways(rows, server, &caller, &echo, *region, ring.get()).Measure();
  }
}

#ifdef GDN_HAVE_CUDA
void MeasureCuda() {
  if (!CudaDevicePresent()) return;
  auto backend = MakeCudaBackend(kShape);
  if (!backend.ok()) Fail(std::string(backend.status().message()));
  const test::RandomLayer layer(1, kShape);
  if (!(*backend)->LoadLayer(0, layer.weights()).ok()) Fail("the layer cannot be loaded");
  MeasureAll(*std::move(backend), MakeCudaMemoryOpener());
}
#else
void MeasureCuda() {}
#endif

int Main() {
  TuneProcess();
  std::printf("planes_bench: Decode at hidden 2048 in bf16, %d steps each, us\n", kCalls);
  std::printf("%6s  %-22s %9s %9s %9s\n", "rows", "", "p50", "p99", "beside");
  MeasureAll(std::make_unique<NullBackend>(kShape), nullptr);
  MeasureCuda();
  return 0;
}

}  // namespace
}  // namespace gdn

int main() { return gdn::Main(); }
