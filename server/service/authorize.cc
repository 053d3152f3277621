#include "server/service/authorize.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/listen/tokens.h"

namespace gdn {
namespace {

constexpr char kHeader[] = "authorization";
constexpr char kScheme[] = "Bearer ";

// Empty where there is none, or more than one.
absl::string_view BearerOf(const grpc::ServerContextBase& context) {
  const auto& metadata = context.client_metadata();
  const auto found = metadata.find(kHeader);
  if (found == metadata.end() || metadata.count(kHeader) > 1) return {};
  absl::string_view value(found->second.data(), found->second.size());
  if (!absl::StartsWithIgnoreCase(value, kScheme)) return {};
  return value.substr(sizeof(kScheme) - 1);
}

}  // namespace

Fault Authorize(const Readiness& readiness, const grpc::ServerContextBase& context,
                absl::string_view method) {
  if (readiness.tokens == nullptr) return {};
  const auto tokens = readiness.tokens->tokens();
  const Token* token = FindToken(*tokens, BearerOf(context));
  if (token == nullptr) {
    return FaultOf(v1::ERROR_REASON_TOKEN_INVALID,
                   "the call has no bearer token that is known here");
  }
  if (Allows(*token, method)) return {};
  return FaultOf(v1::ERROR_REASON_METHOD_DENIED,
                 absl::StrCat("the token ", token->name, " does not allow ", method));
}

}  // namespace gdn
