// What --listen names.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace gdn {

struct Address {
  std::string path = {};  // of a Unix socket; empty: TCP
  std::string host = {};  // without brackets
  std::string port = {};

  bool is_unix() const { return !path.empty(); }
};

// unix:PATH, host:port or [host]:port. INVALID_ARGUMENT names the address.
absl::StatusOr<Address> ParseAddress(absl::string_view text);
std::string ToString(const Address& address);

// Nobody outside this machine can reach it: a Unix socket, localhost, 127.0.0.0/8 or ::1.
bool IsLocal(const Address& address);

}  // namespace gdn
