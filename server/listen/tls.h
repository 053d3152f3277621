// TLS of the server's TCP addresses.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "grpcpp/security/server_credentials.h"

namespace gdn {

// Paths of PEM files.
struct TlsFiles {
  std::string certificate;  // the chain, the server's own first; empty: no TLS
  std::string key;
  std::string client_ca;  // clients must have a certificate of these; empty: none is asked for
};

// INVALID_ARGUMENT names the file that cannot be read, is no PEM, or does not belong to the other.
absl::Status CheckTls(const TlsFiles& files);

// Reads the files anew every `interval`, and uses what they say for new connections.
std::shared_ptr<grpc::ServerCredentials> TlsCredentials(const TlsFiles& files,
                                                        absl::Duration interval);

}  // namespace gdn
