#include "server/listen/tls.h"

#include <openssl/err.h>
#include <openssl/ssl.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "grpcpp/security/tls_certificate_provider.h"
#include "grpcpp/security/tls_credentials_options.h"

namespace gdn {
namespace {

using grpc::experimental::FileWatcherCertificateProvider;
using grpc::experimental::TlsServerCredentialsOptions;

absl::Status Wrong(const std::string& flag, const std::string& path) {
  const char* reason = ERR_reason_error_string(ERR_peek_last_error());
  ERR_clear_error();
  return absl::InvalidArgumentError(
      absl::StrCat("--", flag, ": ", path, ": ", reason == nullptr ? "cannot be read" : reason));
}

// What gRPC of before says in another way than gRPC of today.
template <typename Options, typename Provider>
Options OptionsOf(const std::shared_ptr<Provider>& provider, bool mutual) {
  if constexpr (requires { Options::Create(provider); }) {
    Options options = *Options::Create(provider);
    if (mutual) options.set_root_certificate_provider(provider);
    return options;
  } else {
    Options options(provider);
    options.watch_identity_key_cert_pairs();
    if (mutual) options.watch_root_certs();
    return options;
  }
}

}  // namespace

absl::Status CheckTls(const TlsFiles& files) {
  const std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context(SSL_CTX_new(TLS_server_method()),
                                                                  SSL_CTX_free);
  if (SSL_CTX_use_certificate_chain_file(context.get(), files.certificate.c_str()) != 1) {
    return Wrong("tls_cert", files.certificate);
  }
  if (SSL_CTX_use_PrivateKey_file(context.get(), files.key.c_str(), SSL_FILETYPE_PEM) != 1) {
    return Wrong("tls_key", files.key);
  }
  if (!files.client_ca.empty() &&
      SSL_CTX_load_verify_locations(context.get(), files.client_ca.c_str(), nullptr) != 1) {
    return Wrong("tls_client_ca", files.client_ca);
  }
  return absl::OkStatus();
}

std::shared_ptr<grpc::ServerCredentials> TlsCredentials(const TlsFiles& files,
                                                        absl::Duration interval) {
  const auto seconds = static_cast<unsigned>(std::max<int64_t>(absl::ToInt64Seconds(interval), 1));
  const auto provider = std::make_shared<FileWatcherCertificateProvider>(
      files.key, files.certificate, files.client_ca, seconds);
  const bool mutual = !files.client_ca.empty();
  auto options = OptionsOf<TlsServerCredentialsOptions>(provider, mutual);
  if (mutual) {
    options.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  }
  return grpc::experimental::TlsServerCredentials(options);
}

}  // namespace gdn
