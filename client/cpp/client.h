// A blocking client of the GDN layer server. Thread-safe; a call that fails changes no answer.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "client/cpp/error.h"
#include "client/cpp/step_call.h"
#include "gdn/v1/gdn_service.grpc.pb.h"
#include "gdn/v1/sequence_service.grpc.pb.h"
#include "grpcpp/channel.h"
#include "grpcpp/generic/generic_stub.h"

namespace gdn::client {

// Paths of PEM files; a file that cannot be read counts as empty, and the calls then fail.
struct Tls {
  std::string ca;           // authorities of the server's certificate; empty: those of the system
  std::string cert, key;    // of this client, for a server that asks for one
  std::string server_name;  // in the server's certificate, where the target is not it
};

// A channel to "host:port" or "unix:PATH", in plain text unless `tls` is given, whose calls carry
// the bearer token where it is not empty. It has the arguments that large tensors want: frames of 1
// MiB, wide windows, large reads, no limit on what is received; a connection of its own. Prefills
// and decodes are better on channels of their own: a large message holds up what follows it.
std::shared_ptr<grpc::Channel> Connect(const std::string& target,
                                       const std::optional<Tls>& tls = std::nullopt,
                                       const std::string& token = "");

enum class Health { kUnknown = 0, kServing = 1, kNotServing = 2, kServiceUnknown = 3 };

class Client {
 public:
  // Calls take at most `timeout` each.
  explicit Client(std::shared_ptr<grpc::Channel> channel,
                  std::chrono::milliseconds timeout = std::chrono::seconds(30));

  Error Info(v1::GetServerInfoResponse* info);
  Error Get(const std::string& request_id, v1::Sequence* sequence);
  // All sequences, by slot; as many calls as there are pages.
  Error List(std::vector<v1::Sequence>* sequences);
  Error Release(const v1::ReleaseSequencesRequest& request);
  Error Renew(const v1::RenewSequencesRequest& request, v1::RenewSequencesResponse* response);
  // grpc.health.v1 of `service`; empty: of the server as a whole.
  Error CheckHealth(const std::string& service, Health* health);

  // Steps whose `input` is not in the request but beside it, sent as it lies. A slice of static
  // memory must stay as it is for as long as the channel lives; any other is kept by reference.
  Error Prefill(const v1::PrefillRequest& request, const grpc::Slice& input, StepAnswer* answer);
  Error Decode(const v1::DecodeRequest& request, const grpc::Slice& input, StepAnswer* answer);
  // The same for a request serialized before, one byte string for many calls.
  Error PrefillSerialized(const std::string& request, const grpc::Slice& input, StepAnswer* answer);
  Error DecodeSerialized(const std::string& request, const grpc::Slice& input, StepAnswer* answer);

 private:
  void SetDeadline(grpc::ClientContext* context) const;
  // Sends `request` to `method` and waits.
  template <typename Request, typename Response>
  grpc::Status Call(const std::string& method, const Request& request, Response* response) const;
  Error Step(const std::string& method, const std::string& request, const grpc::Slice& input,
             StepAnswer* answer) const;

  std::shared_ptr<grpc::Channel> channel_;
  std::chrono::milliseconds timeout_;
  std::unique_ptr<v1::GdnService::Stub> gdn_;
  std::unique_ptr<v1::SequenceService::Stub> sequences_;
};

}  // namespace gdn::client
