// Holds reflection, whose service is gRPC's own, to the rule that tokens are asked for.
#pragma once

#include <memory>

#include "grpcpp/support/server_interceptor.h"
#include "server/service/hosted.h"

namespace gdn {

// For calls of grpc.reflection: without the right `read` or `all` they end with UNAUTHENTICATED or
// PERMISSION_DENIED, which carry no details. Other calls have no interceptor.
std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface> MakeReflectionGate(
    const Readiness& readiness);

}  // namespace gdn
