// gdn-ctl top: what a server does, over and over.
#pragma once

#include <ostream>
#include <string>

#include "client/cpp/ctl_options.h"

namespace gdn::client {

// False, and why, where the server cannot be scraped.
bool RunTop(const CtlOptions& options, std::ostream& out, std::string* why);

}  // namespace gdn::client
