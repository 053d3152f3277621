// A gRPC server of canned answers in this process, made of the generated services.
#pragma once

#include <algorithm>
#include <atomic>
#include <ctime>
#include <memory>
#include <string>
#include <vector>

#include "gdn/v1/errors.pb.h"
#include "gdn/v1/gdn_service.grpc.pb.h"
#include "gdn/v1/sequence_service.grpc.pb.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "grpcpp/health_check_service_interface.h"
#include "grpcpp/server_builder.h"

namespace gdn::client {

// A refusal as the server makes them: SEQUENCE_NOT_FOUND for rows 1 and 3.
inline google::rpc::Status NotFound() {
  google::rpc::Status status;
  status.set_code(grpc::NOT_FOUND);
  status.set_message("Row 1 is gone.");
  google::rpc::ErrorInfo info;
  info.set_reason("SEQUENCE_NOT_FOUND");
  info.set_domain("gdn.v1");
  (*info.mutable_metadata())["instance_id"] = "fake-1";
  status.add_details()->PackFrom(info);
  google::rpc::RetryInfo retry;
  retry.mutable_retry_delay()->set_seconds(1);
  retry.mutable_retry_delay()->set_nanos(5);
  status.add_details()->PackFrom(retry);
  v1::RowErrors rows;
  rows.set_reason(v1::ERROR_REASON_SEQUENCE_NOT_FOUND);
  rows.add_rows(1);
  rows.add_rows(3);
  status.add_details()->PackFrom(rows);
  return status;
}

inline grpc::Status ToGrpc(const google::rpc::Status& status) {
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), status.message(),
                      status.SerializeAsString());
}

// Prefill gives the input back, Decode gives it back reversed; layer 99 is NotFound().
class FakeGdn final : public v1::GdnService::Service {
 public:
  grpc::Status GetServerInfo(grpc::ServerContext*, const v1::GetServerInfoRequest*,
                             v1::GetServerInfoResponse* response) override {
    response->set_version("1.2.3");
    response->set_instance_id("fake-1");
    response->add_layers(0);
    response->add_layers(4);
    response->set_data_type(v1::DATA_TYPE_BF16);
    response->add_input_layouts(v1::INPUT_LAYOUT_HIDDEN);
    response->add_input_layouts(v1::INPUT_LAYOUT_QKV_B_A);
    response->mutable_geometry()->set_hidden_size(2048);
    response->set_slots(1000);
    response->set_slots_used(17);
    response->mutable_step_ttl()->set_seconds(60);
    return grpc::Status::OK;
  }

  grpc::Status Prefill(grpc::ServerContext*, const v1::PrefillRequest* request,
                       v1::PrefillResponse* response) override {
    return Step(*request, request->input(), response);
  }

  grpc::Status Decode(grpc::ServerContext*, const v1::DecodeRequest* request,
                      v1::DecodeResponse* response) override {
    return Step(*request, {request->input().rbegin(), request->input().rend()}, response);
  }

  std::atomic<int> steps = 0;

 private:
  template <typename Request, typename Response>
  grpc::Status Step(const Request& request, const std::string& output, Response* response) {
    if (request.layer() == 99) return ToGrpc(NotFound());
    ++steps;
    for (int row = 0; row < request.batch().request_ids_size(); ++row) {
      response->add_slots(row);
      response->add_epochs(1000 + row);
    }
    response->set_replayed_rows(request.layer());
    response->set_output(output);
    return grpc::Status::OK;
  }
};

// Five sequences in pages of two; "gone" is none of them.
class FakeSequences final : public v1::SequenceService::Service {
 public:
  grpc::Status GetSequence(grpc::ServerContext*, const v1::GetSequenceRequest* request,
                           v1::GetSequenceResponse* response) override {
    if (request->request_id() == "gone") return ToGrpc(NotFound());
    *response->mutable_sequence() = Sequence(3);
    return grpc::Status::OK;
  }

  grpc::Status ListSequences(grpc::ServerContext*, const v1::ListSequencesRequest* request,
                             v1::ListSequencesResponse* response) override {
    const int first = request->page_token().empty() ? 0 : std::stoi(request->page_token());
    for (int slot = first; slot < std::min(first + 2, 5); ++slot) {
      *response->add_sequences() = Sequence(slot);
    }
    if (first + 2 < 5) response->set_next_page_token(std::to_string(first + 2));
    return grpc::Status::OK;
  }

  grpc::Status ReleaseSequences(grpc::ServerContext*, const v1::ReleaseSequencesRequest* request,
                                v1::ReleaseSequencesResponse*) override {
    released.assign(request->request_ids().begin(), request->request_ids().end());
    return grpc::Status::OK;
  }

  grpc::Status RenewSequences(grpc::ServerContext*, const v1::RenewSequencesRequest* request,
                              v1::RenewSequencesResponse* response) override {
    response->set_instance_id("fake-1");
    *response->mutable_missing_request_ids() = request->request_ids();
    return grpc::Status::OK;
  }

  std::vector<std::string> released;

 private:
  static v1::Sequence Sequence(int slot) {
    v1::Sequence sequence;
    sequence.set_request_id("request-" + std::to_string(slot));
    sequence.set_slot(slot);
    sequence.set_epoch(1000 + slot);
    sequence.set_state(slot == 4 ? v1::SEQUENCE_STATE_POISONED : v1::SEQUENCE_STATE_LIVE);
    sequence.add_positions(7);
    sequence.add_positions(slot == 3 ? 8 : 7);
    // Slot 0 is the oldest and has the longest lease.
    const std::time_t now = std::time(nullptr);
    sequence.mutable_create_time()->set_seconds(now - 7200 + slot);
    sequence.mutable_expire_time()->set_seconds(now + 130 - 10 * slot);
    return sequence;
  }
};

// Listens on a free port of this machine.
class FakeServer {
 public:
  FakeServer() {
    grpc::EnableDefaultHealthCheckService(true);
    int port = 0;
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&gdn_);
    builder.RegisterService(&sequences_);
    builder.SetMaxReceiveMessageSize(-1);
    server_ = builder.BuildAndStart();
    target_ = "127.0.0.1:" + std::to_string(port);
  }

  const std::string& target() const { return target_; }
  const FakeGdn& gdn() const { return gdn_; }
  const FakeSequences& sequences() const { return sequences_; }
  void SetServing(bool serving) { server_->GetHealthCheckService()->SetServingStatus(serving); }

 private:
  FakeGdn gdn_;
  FakeSequences sequences_;
  std::unique_ptr<grpc::Server> server_;
  std::string target_;
};

}  // namespace gdn::client
