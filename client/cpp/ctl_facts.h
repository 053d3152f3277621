// gdn-ctl info, health, ls, release.
#pragma once

#include <ostream>

#include "client/cpp/client.h"
#include "client/cpp/ctl_options.h"

namespace gdn::client {

Error RunInfo(Client& client, const CtlOptions& options, std::ostream& out);
// UNAVAILABLE where the server is not SERVING.
Error RunHealth(Client& client, const CtlOptions& options, std::ostream& out);
Error RunLs(Client& client, const CtlOptions& options, std::ostream& out);
Error RunRelease(Client& client, const CtlOptions& options, std::ostream& out);

}  // namespace gdn::client
