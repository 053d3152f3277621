#include "server/service/grpc_server.h"

#include "absl/time/clock.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/health_check_service_interface.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server_builder.h"
#include "server/listen/address.h"
#include "server/service/reflection_gate.h"

namespace gdn {
namespace {

using FromFd = grpc::ServerBuilder::experimental_type::ExternalConnectionType;

}  // namespace

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Start(const Readiness& readiness,
                                                              const GrpcServerOptions& options) {
  grpc::EnableDefaultHealthCheckService(true);
  if (options.reflection) grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  std::unique_ptr<GrpcServer> self(new GrpcServer(readiness));
  grpc::ServerBuilder builder;
  TuneServer(options.limits, &builder);
  if (readiness.tokens != nullptr) {
    std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> gates;
    gates.push_back(MakeReflectionGate(readiness));
    builder.experimental().SetInterceptorCreators(std::move(gates));
  }
  if (absl::Status status = self->Listen(options, &builder); !status.ok()) return status;
  builder.RegisterService(&self->gdn_service_);
  builder.RegisterService(&self->sequence_service_);
  if (options.shared_memory) builder.RegisterService(&self->shared_memory_service_);
  self->server_ = builder.BuildAndStart();
  if (self->server_ == nullptr) return absl::UnavailableError("the server does not start");
  self->SetServing(false);
  self->acceptor_ = std::make_unique<Acceptor>(std::move(self->doors_), options.max_connections);
  return self;
}

absl::Status GrpcServer::Listen(const GrpcServerOptions& options, grpc::ServerBuilder* builder) {
  const bool tls = !options.tls.certificate.empty();
  if (tls) {
    if (absl::Status status = CheckTls(options.tls); !status.ok()) return status;
  }
  if (absl::Status status =
          Acceptor::ReserveFiles(options.max_connections, options.addresses.size());
      !status.ok()) {
    return status;
  }
  for (const std::string& text : options.addresses) {
    absl::StatusOr<Address> address = ParseAddress(text);
    if (!address.ok()) return address.status();
    absl::StatusOr<Listener> listener = gdn::Listen(*address, options.unix_mode);
    if (!listener.ok()) return listener.status();
    addresses_.push_back(ToString(listener->address));
    const auto credentials = tls && !address->is_unix()
                                 ? TlsCredentials(options.tls, options.reload_interval)
                                 : grpc::InsecureServerCredentials();
    doors_.push_back({*std::move(listener), builder->experimental().AddExternalConnectionAcceptor(
                                                FromFd::FROM_FD, credentials)});
  }
  return absl::OkStatus();
}

void GrpcServer::SetServing(bool serving) {
  serving_ = serving;
  grpc::HealthCheckServiceInterface* health = server_->GetHealthCheckService();
  health->SetServingStatus(serving);
  health->SetServingStatus(v1::GdnService::service_full_name(), serving);
  health->SetServingStatus(v1::SequenceService::service_full_name(), serving);
}

void GrpcServer::Shutdown(absl::Duration grace) {
  acceptor_.reset();
  server_->Shutdown(absl::ToChronoTime(absl::Now() + grace));
  server_->Wait();
}

}  // namespace gdn
