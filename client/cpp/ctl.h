// What gdn-ctl does.
#pragma once

#include <ostream>
#include <string>
#include <vector>

namespace gdn::client {

// Runs a command line without the program's name. Tables go to `out`, errors to `err`. Returns the
// exit code: 0; 1 where the call failed or the server is not SERVING; 2 for wrong usage.
int RunCtl(const std::vector<std::string>& arguments, std::ostream& out, std::ostream& err);

}  // namespace gdn::client
