// The steps of one batch by every way from a caller to the engine, and what each takes.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "client/cpp/region.h"
#include "client/cpp/ring.h"
#include "server/service/message.h"
#include "tests/bench/bf16_noise.h"
#include "tests/bench/planes_board.h"
#include "tests/bench/planes_caller.h"
#include "tests/bench/planes_targets.h"

namespace gdn {

// Who is called, each on a connection of its own.
struct Callers {
  explicit Callers(const Board& board)
      : echo(board.echo),
        echo_tcp(board.echo_tcp),
        service(board.service),
        service_tcp(board.service_tcp) {}

  Caller echo, echo_tcp, service, service_tcp;
};

// Queues of the ring, which lies where the region begins; the tensors follow.
inline constexpr size_t kRingQueue = 64 << 10;

// `rows` rows of `tokens` together at hidden 2048 in bf16: a Decode, or a Prefill where that is
// more than one a row.
class Ways {
 public:
  Ways(int64_t rows, int64_t tokens, Board* board, Callers* callers, const client::Region& region)
      : rows_(rows), tokens_(tokens), board_(*board), callers_(*callers), region_(region) {
    tensor_.resize(static_cast<size_t>(tokens) * kTokenBytes);
    FillWithBf16(std::as_writable_bytes(std::span(tensor_)));
    const uint64_t input = client::Ring::BytesOf(kRingQueue, kRingQueue);
    if (input + 2 * tensor_.size() > region.size()) Fail("the region is too small");
    std::memcpy(region.data() + input, tensor_.data(), tensor_.size());
    Begin();
    in_region_ = request_;
    in_region_.mutable_shared_memory()->set_region(region.name());
    in_region_.mutable_shared_memory()->set_input_offset(input);
    in_region_.mutable_shared_memory()->set_output_offset(input + tensor_.size());
  }

  // Of each way `runs` steps at least, in blocks in turn; by name, behind which NameOf says how a
  // call's caller waits. The ring comes after the calls: the thread that watches it would take
  // their messages off their sockets.
  WayTimes Measure(int runs) {
    std::vector<Way> ways;
    for (const Patience patience : {Patience::kSleeps, Patience::kSpins}) AddCalls(patience, &ways);
    RunInTurn(runs, ways);
    client::Error error =
        client::Ring::Open(Connect(board_.service.data()), region_, kRingQueue, kRingQueue, &ring_);
    if (!error.ok()) Fail(client::ToString(error));
    ways.push_back({"ring", [this] { PreparePosted(); }, [this] { ThroughRing(); }});
    RunInTurn(runs, std::span(ways).last(1));
    ring_ = nullptr;
    WayTimes found;
    for (Way& way : ways) found[way.name] = Print(&way);
    return found;
  }

 private:
  static constexpr size_t kTokenBytes = 4096;
  static constexpr const char* kEchoMethod = "/gdn.v1.GdnService/Decode";
  static constexpr const char* kLateMethod = "/gdn.v1.GdnService/Prefill";

  struct Way {
    std::string name;
    std::function<void()> prepare;
    std::function<void()> run;
    std::vector<double> times = {};   // µs
    std::vector<double> beside = {};  // likewise, as of WayTime
  };

  bool IsPrefill() const { return tokens_ > rows_; }
  const char* Method() const { return IsPrefill() ? "/gdn.v1.GdnService/Prefill" : kEchoMethod; }

  void AddCalls(Patience patience, std::vector<Way>* ways) {
    const auto add = [&](const char* name, std::function<void()> prepare, Caller* caller,
                         const char* method, const grpc::ByteBuffer* message) {
      ways->push_back({name + NameOf(patience), std::move(prepare),
                       [=] { caller->Call(method, *message, patience); }});
    };
    const auto nothing = [] {};
    const auto tensors = [this] { PrepareInline(); };
    const auto header = [this] { header_ = Serialize(NextInRegion()); };
    add("echo, empty", nothing, &callers_.echo, kEchoMethod, &empty_);
    add("echo, same bytes", tensors, &callers_.echo, kEchoMethod, &inline_);
    add("call, inline", tensors, &callers_.service, Method(), &inline_);
    add("echo, same bytes, TCP", tensors, &callers_.echo_tcp, kEchoMethod, &inline_);
    add("call, inline, TCP", tensors, &callers_.service_tcp, Method(), &inline_);
    add("late echo, empty", nothing, &callers_.echo, kLateMethod, &empty_);
    add("late echo", tensors, &callers_.echo, kLateMethod, &inline_);
    add("late echo, TCP", tensors, &callers_.echo_tcp, kLateMethod, &inline_);
    add("call, shared memory", header, &callers_.service, Method(), &header_);
  }

  // The sequences, and what every step of them says.
  void Begin() {
    v1::DecodeRequest first;
    v1::Batch& batch = *first.mutable_batch();
    batch.set_data_type(v1::DATA_TYPE_BF16);
    batch.set_create(true);
    for (int64_t row = 0; row < rows_; ++row) {
      batch.add_request_ids(std::to_string(tokens_) + "-" + std::to_string(row));
      batch.add_token_counts(0);
    }
    v1::DecodeResponse begun;
    Parse(callers_.service.Call(kEchoMethod, Serialize(first), Patience::kSleeps), &begun);
    v1::Batch& later = *request_.mutable_batch();
    later.set_data_type(v1::DATA_TYPE_BF16);
    later.mutable_slots()->CopyFrom(begun.slots());
    later.mutable_epochs()->CopyFrom(begun.epochs());
    for (int64_t row = 0; IsPrefill() && row < rows_; ++row) {
      later.add_token_counts(static_cast<uint32_t>(tokens_ / rows_));
    }
  }

  void RunInTurn(int runs, std::span<Way> ways) {
    const int block = IsPrefill() ? 4 : 20;
    for (int done = -block; done < runs; done += block) {  // the first blocks warm up
      for (Way& way : ways) RunBlock(block, /*counts=*/done >= 0, &way);
    }
  }

  // `steps` of one way, after some that wake whom the way needs and do not count.
  void RunBlock(int steps, bool counts, Way* way) {
    for (int i = -steps / 4; i < steps; ++i) {
      way->prepare();
      const auto begin = std::chrono::steady_clock::now();
      way->run();
      const std::chrono::duration<double, std::micro> time =
          std::chrono::steady_clock::now() - begin;
      const double backend = board_.backend_us.exchange(0);
      if (i < 0 || !counts) continue;
      way->times.push_back(time.count());
      way->beside.push_back(time.count() - backend);
    }
  }

  // Each step has an id of its own; what the caller serialises is not timed, its copies are.
  const v1::DecodeRequest& NextInRegion() {
    in_region_.mutable_batch()->set_step_id(++step_id_);
    return in_region_;
  }

  void PrepareInline() {
    request_.mutable_batch()->set_step_id(++step_id_);
    std::string before = request_.SerializeAsString() + '\x7a';
    for (size_t n = tensor_.size();; n >>= 7) {
      before.push_back(static_cast<char>((n & 0x7f) | (n > 0x7f ? 0x80 : 0)));
      if (n <= 0x7f) break;
    }
    const grpc::Slice slices[2] = {grpc::Slice(before), grpc::Slice(tensor_)};
    inline_ = grpc::ByteBuffer(slices, 2);
  }

  void PreparePosted() {
    v1::StreamRequest posted;
    if (IsPrefill()) {
      posted.mutable_prefill()->ParseFromString(NextInRegion().SerializeAsString());
    } else {
      *posted.mutable_decode() = NextInRegion();
    }
    posted.set_tag(step_id_);
    posted_ = posted.SerializeAsString();
  }

  void ThroughRing() {
    std::string answer;
    if (!ring_->Post(posted_) || !ring_->Receive(&answer, std::chrono::seconds(10))) {
      Fail("the ring has ended");
    }
    v1::StreamResponse response;
    response.ParseFromString(answer);
    if (!response.has_decode() && !response.has_prefill()) Fail(response.status().message());
  }

  static double Percentile(std::vector<double>* times, double p) {
    std::sort(times->begin(), times->end());
    return (*times)[static_cast<size_t>(p * static_cast<double>(times->size() - 1))];
  }

  WayTime Print(Way* way) const {
    const WayTime time = {Percentile(&way->times, 0.5), Percentile(&way->times, 0.99),
                          Percentile(&way->beside, 0.5)};
    std::printf("%6lld  %-31s %9.1f %9.1f %9.1f\n", static_cast<long long>(tokens_),
                way->name.c_str(), time.p50, time.p99, time.beside);
    std::fflush(stdout);
    return time;
  }

  const int64_t rows_;
  const int64_t tokens_;
  Board& board_;
  Callers& callers_;
  const client::Region& region_;
  std::unique_ptr<client::Ring> ring_;
  v1::DecodeRequest request_;
  v1::DecodeRequest in_region_;
  std::string tensor_;
  uint64_t step_id_ = 0;
  const grpc::ByteBuffer empty_ = ToByteBuffer("");
  grpc::ByteBuffer inline_;
  grpc::ByteBuffer header_;
  std::string posted_;
};

}  // namespace gdn
