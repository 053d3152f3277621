// Reads one page over plain HTTP.
#pragma once

#include <chrono>
#include <string>

namespace gdn::client {

// GET http://address/path, of host:port or [host]:port. False, and why, where there is no answer of
// status 200 within `patience`. To look up a name takes the time that the system takes beside it.
bool HttpGet(const std::string& address, const std::string& path,
             std::chrono::milliseconds patience, std::string* body, std::string* why);

}  // namespace gdn::client
