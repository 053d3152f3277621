// The file of bearer tokens: who may call what.
//
// A line is NAME RIGHTS TOKEN; # begins a comment. RIGHTS are, separated by commas, names of
// methods
// ("Prefill"), `read` (methods that only look: Get… and List…) and `all`. A token has at least 16
// characters.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace gdn {

struct Token {
  std::string name;  // for messages to people; never secret
  std::vector<std::string> rights;
  std::string secret;
};

// INVALID_ARGUMENT names the line, never its token. A file without tokens would lock everybody out:
// also INVALID_ARGUMENT.
absl::StatusOr<std::vector<Token>> ParseTokens(absl::string_view text);

// The token whose secret this is, or null. Takes as long wherever the secrets differ.
const Token* FindToken(const std::vector<Token>& tokens, absl::string_view secret);

// `method` without its service: "Decode".
bool Allows(const Token& token, absl::string_view method);

}  // namespace gdn
