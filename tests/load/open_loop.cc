#include "tests/load/open_loop.h"

#include <algorithm>
#include <utility>

#include "client/cpp/client.h"
#include "client/cpp/error.h"
#include "client/cpp/step_call.h"
#include "gdn/v1/errors.pb.h"
#include "gdn/v1/gdn_service.pb.h"
#include "grpcpp/client_context.h"

namespace gdn {
namespace {

constexpr int kGroups = 16;
constexpr int kClosed = 2;
constexpr std::chrono::seconds kTimeout(10);

grpc::ByteBuffer RequestOf(const LoopWork& work, int group) {
  v1::DecodeRequest request;
  request.mutable_batch()->set_data_type(v1::DATA_TYPE_BF16);
  request.mutable_batch()->set_create(true);
  // Short, so that to read them costs a server little: it is to be kept busy by the rows it takes.
  const std::string name = std::to_string(work.loop) + "-" + std::to_string(group) + "-";
  for (int row = 0; row < work.rows; ++row) {
    request.mutable_batch()->add_request_ids(name + std::to_string(row));
  }
  if (work.synthetic) {
    request.mutable_batch()->set_discard_output(true);
    request.set_synthetic_seed(1);
    return client::EncodeStep(request.SerializeAsString(), grpc::Slice());
  }
  const std::string input(static_cast<size_t>(work.rows) * work.hidden_size * 2, '\0');
  return client::EncodeStep(request.SerializeAsString(), grpc::Slice(input));
}

std::chrono::steady_clock::duration Duration(double seconds) {
  return std::chrono::duration_cast<std::chrono::steady_clock::duration>(
      std::chrono::duration<double>(seconds));
}

double Seconds(std::chrono::steady_clock::duration duration) {
  return std::chrono::duration<double>(duration).count();
}

}  // namespace

struct OpenLoop::Call {
  grpc::ClientContext context;
  grpc::ByteBuffer response;
  grpc::Status status;
  Clock::time_point begin = Clock::now();
  std::unique_ptr<grpc::GenericClientAsyncResponseReader> reader;
};

double Tally::Percentile(double p) const {
  if (latencies_ms.empty()) return 0;
  std::vector<double> sorted = latencies_ms;
  std::sort(sorted.begin(), sorted.end());
  return sorted[static_cast<size_t>(p * static_cast<double>(sorted.size() - 1))];
}

void Tally::Add(const Tally& other) {
  seconds = std::max(seconds, other.seconds);
  sent += other.sent;
  refused += other.refused;
  latencies_ms.insert(latencies_ms.end(), other.latencies_ms.begin(), other.latencies_ms.end());
  for (const auto& [what, count] : other.wrong) wrong[what] += count;
}

OpenLoop::OpenLoop(const std::string& target, const LoopWork& work)
    : channel_(client::Connect(target)), stub_(channel_), random_(work.loop) {
  for (int group = 0; group < kGroups; ++group) requests_.push_back(RequestOf(work, group));
}

Tally OpenLoop::Closed(double seconds) {
  tally_ = {};
  const Clock::time_point begin = Clock::now();
  while (Seconds(Clock::now() - begin) < seconds) {
    while (in_flight_ < kClosed) Send();
    TakeOne(Clock::time_point::max());
  }
  TakeAll();
  tally_.seconds = Seconds(Clock::now() - begin);
  return std::exchange(tally_, {});
}

Tally OpenLoop::Open(double rate, double seconds) {
  tally_ = {};
  std::exponential_distribution<double> gap(rate);
  const Clock::time_point begin = Clock::now();
  // Where more is due than can be sent it ends with its time all the same.
  for (double due = gap(random_); std::max(due, Seconds(Clock::now() - begin)) < seconds;
       due += gap(random_)) {
    const Clock::time_point at = begin + Duration(due);
    TakeUntil(at);
    if (in_flight_ < kMostInFlight || TakeOne(begin + Duration(seconds))) Send();
  }
  tally_.seconds = Seconds(Clock::now() - begin);
  TakeAll();
  return std::exchange(tally_, {});
}

void OpenLoop::Send() {
  auto* call = new Call;  // deleted with its end
  call->context.set_deadline(std::chrono::system_clock::now() + kTimeout);
  call->reader = stub_.PrepareUnaryCall(&call->context, "/gdn.v1.GdnService/Decode",
                                        requests_[next_++ % requests_.size()], &queue_);
  call->reader->StartCall();
  call->reader->Finish(&call->response, &call->status, call);
  ++in_flight_;
  ++tally_.sent;
}

bool OpenLoop::TakeOne(Clock::time_point until) {
  void* tag = nullptr;
  bool ok = false;
  const auto wait = std::min<Clock::duration>(until - Clock::now(), std::chrono::seconds(1));
  if (queue_.AsyncNext(&tag, &ok, std::chrono::system_clock::now() + wait) !=
      grpc::CompletionQueue::GOT_EVENT) {
    return false;
  }
  const std::unique_ptr<Call> call(static_cast<Call*>(tag));
  --in_flight_;
  Count(*call);
  return true;
}

void OpenLoop::TakeUntil(Clock::time_point until) {
  while (TakeOne(until) || Clock::now() < until) {
  }
}

void OpenLoop::TakeAll() {
  while (in_flight_ > 0) TakeOne(Clock::time_point::max());
}

void OpenLoop::Count(const Call& call) {
  if (call.status.ok()) {
    tally_.latencies_ms.push_back(Seconds(Clock::now() - call.begin) * 1e3);
    return;
  }
  const client::Error error = client::DecodeError(call.status);
  const bool typed = error.code == grpc::RESOURCE_EXHAUSTED &&
                     error.reason == v1::ERROR_REASON_QUEUE_FULL && error.retry_delay.count() > 0;
  if (typed) {
    ++tally_.refused;
  } else {
    ++tally_.wrong[client::CodeName(error.code) + " " + v1::ErrorReason_Name(error.reason)];
  }
}

}  // namespace gdn
