// Whether a caller may do what it asks for.
#pragma once

#include "absl/strings/string_view.h"
#include "grpcpp/server_context.h"
#include "server/service/hosted.h"
#include "server/wire/fault.h"

namespace gdn {

// OK where no tokens are asked for, or the call's metadata `authorization: Bearer TOKEN` allows
// `method` (without its service). Else TOKEN_INVALID or METHOD_DENIED.
Fault Authorize(const Readiness& readiness, const grpc::ServerContextBase& context,
                absl::string_view method);

}  // namespace gdn
