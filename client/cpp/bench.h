// gdn-ctl bench: what a server answers under a load.
#pragma once

#include <ostream>

#include "client/cpp/ctl_options.h"
#include "client/cpp/load.h"

namespace gdn::client {

// A progress bar goes to `err`. The error is the first of a load, if one had any.
Error RunBench(const CtlOptions& options, const MakeClient& make_client, std::ostream& out,
               std::ostream& err);

}  // namespace gdn::client
