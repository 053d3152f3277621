#include "server/listen/address.h"

#include <arpa/inet.h>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace gdn {
namespace {

constexpr size_t kLongestPath = 107;  // of sockaddr_un, without the final 0
constexpr uint32_t kLargestPort = 65535;

absl::Status NoAddress(absl::string_view text, absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat(text, ": ", why));
}

}  // namespace

absl::StatusOr<Address> ParseAddress(absl::string_view text) {
  Address address;
  absl::string_view rest = text;
  if (absl::ConsumePrefix(&rest, "unix:")) {
    absl::ConsumePrefix(&rest, "//");
    address.path = std::string(rest);
    if (rest.empty()) return NoAddress(text, "the socket has no path");
    if (rest.size() > kLongestPath) return NoAddress(text, "the socket's path is too long");
    return address;
  }
  const size_t colon = rest.rfind(':');
  if (colon == absl::string_view::npos) return NoAddress(text, "expected host:port or unix:PATH");
  absl::string_view host = rest.substr(0, colon);
  address.port = std::string(rest.substr(colon + 1));
  const bool in_brackets = absl::ConsumePrefix(&host, "[") && absl::ConsumeSuffix(&host, "]");
  address.host = std::string(host);
  uint32_t port = 0;
  if (host.empty() || (!in_brackets && absl::StrContains(host, ":"))) {
    return NoAddress(text, "expected host:port, with an IPv6 host in brackets");
  }
  if (!absl::SimpleAtoi(address.port, &port) || port > kLargestPort) {
    return NoAddress(text, "there is no such port");
  }
  return address;
}

std::string ToString(const Address& address) {
  if (address.is_unix()) return absl::StrCat("unix:", address.path);
  const bool brackets = absl::StrContains(address.host, ":");
  return absl::StrCat(brackets ? "[" : "", address.host, brackets ? "]:" : ":", address.port);
}

bool IsLocal(const Address& address) {
  if (address.is_unix() || address.host == "localhost") return true;
  in_addr v4;
  in6_addr v6;
  if (inet_pton(AF_INET, address.host.c_str(), &v4) == 1) return ntohl(v4.s_addr) >> 24 == 127;
  return inet_pton(AF_INET6, address.host.c_str(), &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

}  // namespace gdn
