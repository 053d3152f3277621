#include "server/service/reflection_gate.h"

#include <grpc/grpc.h>

#include "absl/strings/match.h"
#include "server/service/authorize.h"
#include "server/wire/status.h"

namespace gdn {
namespace {

using grpc::experimental::InterceptionHookPoints;
using grpc::experimental::Interceptor;
using grpc::experimental::InterceptorBatchMethods;
using grpc::experimental::ServerInterceptorFactoryInterface;
using grpc::experimental::ServerRpcInfo;

class Gate : public Interceptor {
 public:
  Gate(const Readiness& readiness, grpc::ServerContextBase* context)
      : readiness_(readiness), context_(context) {}

  void Intercept(InterceptorBatchMethods* methods) override {
    if (methods->QueryInterceptionHookPoint(InterceptionHookPoints::POST_RECV_INITIAL_METADATA)) {
      const Fault denied = Authorize(readiness_, *context_, "GetReflection");
      if (!denied.ok()) {
        grpc_call_cancel_with_status(context_->c_call(),
                                     static_cast<grpc_status_code>(CodeOf(denied.reason)),
                                     denied.message.c_str(), nullptr);
      }
    }
    methods->Proceed();
  }

 private:
  const Readiness& readiness_;
  grpc::ServerContextBase* const context_;
};

class GateFactory : public ServerInterceptorFactoryInterface {
 public:
  explicit GateFactory(const Readiness& readiness) : readiness_(readiness) {}

  Interceptor* CreateServerInterceptor(ServerRpcInfo* info) override {
    if (!absl::StartsWith(info->method(), "/grpc.reflection.")) return nullptr;
    return new Gate(readiness_, info->server_context());
  }

 private:
  const Readiness& readiness_;
};

}  // namespace

std::unique_ptr<ServerInterceptorFactoryInterface> MakeReflectionGate(const Readiness& readiness) {
  return std::make_unique<GateFactory>(readiness);
}

}  // namespace gdn
