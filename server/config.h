// The server's configuration: flags, and the file that --config names.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/config.pb.h"

namespace gdn {

// Reads flags of the form --name=value (a bool also as --name), where names are the fields of
// ServerConfig, and --config=FILE; flags win over the file wherever they stand. INVALID_ARGUMENT
// names the flag or the file's line.
absl::StatusOr<config::ServerConfig> ParseFlags(const std::vector<std::string>& args);

// The text of --help: every flag with its default.
std::string FlagHelp();

// The whole configuration, defaults included, as flags would say it.
std::string AsFlags(const config::ServerConfig& config);

// Checks what does not depend on the model. INVALID_ARGUMENT names the field.
absl::Status Validate(const config::ServerConfig& config);

// A duration field; REQUIRES that Validate accepted it.
absl::Duration DurationOf(const std::string& text);

// unix_socket_mode; REQUIRES that Validate accepted it.
mode_t UnixSocketMode(const config::ServerConfig& config);

// The addresses of `listen`.
std::vector<std::string> Addresses(const config::ServerConfig& config);

}  // namespace gdn
