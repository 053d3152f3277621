// Decodes sent by the clock, or a few at a time, and what became of them.
#pragma once

#include <chrono>
#include <cstddef>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "grpcpp/channel.h"
#include "grpcpp/completion_queue.h"
#include "grpcpp/generic/generic_stub.h"

namespace gdn {

struct Tally {
  double seconds = 0;
  size_t sent = 0;
  std::vector<double> latencies_ms;     // of the calls answered OK
  size_t refused = 0;                   // QUEUE_FULL that says when to come again
  std::map<std::string, size_t> wrong;  // every other end, by code and reason

  double Percentile(double p) const;
  // That of another loop at the same time.
  void Add(const Tally& other);
};

// What a call of the loop is: a Decode at layer 0 in bfloat16.
struct LoopWork {
  size_t hidden_size = 0;
  int rows = 16;
  bool synthetic = false;  // the server makes the input and keeps the answer: a load for it alone
  int loop = 0;            // loops of different numbers share no sequence
};

// One thread, one channel. Calls take turns through groups of sequences, so that those under way
// share none.
class OpenLoop {
 public:
  // In flight at a time in an open loop: half of what a server takes of one connection.
  static constexpr size_t kMostInFlight = 512;

  OpenLoop(const std::string& target, const LoopWork& work);

  // A few calls in flight at any time.
  Tally Closed(double seconds);
  // `rate` calls a second, at random moments. Late ones are sent as soon as they can be, but never
  // beyond kMostInFlight, where they would wait in a transport instead of a server: fewer are sent
  // then.
  Tally Open(double rate, double seconds);

 private:
  using Clock = std::chrono::steady_clock;
  struct Call;

  void Send();
  // Takes one call's end; false where none came until `until`.
  bool TakeOne(Clock::time_point until);
  // Takes all ends that come until `until`, and those that have come by then.
  void TakeUntil(Clock::time_point until);
  void TakeAll();
  void Count(const Call& call);

  std::shared_ptr<grpc::Channel> channel_;
  grpc::GenericStub stub_;
  grpc::CompletionQueue queue_;
  std::vector<grpc::ByteBuffer> requests_;
  std::mt19937_64 random_;
  Tally tally_;
  size_t in_flight_ = 0;
  size_t next_ = 0;
};

}  // namespace gdn
