#include "server/listen/tokens.h"

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace gdn {
namespace {

constexpr size_t kShortestSecret = 16;
constexpr char kAll[] = "all";
constexpr char kRead[] = "read";

bool OnlyLooks(absl::string_view method) {
  return absl::StartsWith(method, "Get") || absl::StartsWith(method, "List");
}

// Reads every byte of `given`, wherever the two differ.
bool Same(absl::string_view given, absl::string_view secret) {
  volatile unsigned char difference = given.size() != secret.size();
  for (size_t i = 0; i < given.size(); ++i) {
    difference = difference | (given[i] ^ secret[i % secret.size()]);
  }
  return difference == 0;
}

// A right that names nothing would be a mistake that nobody sees.
bool IsRight(absl::string_view right) {
  return right == kAll || right == kRead || (!right.empty() && absl::ascii_isupper(right[0]));
}

absl::StatusOr<Token> ParseLine(absl::string_view line) {
  const std::vector<std::string> words =
      absl::StrSplit(line, absl::ByAnyChar(" \t\r"), absl::SkipEmpty());
  if (words.size() != 3) return absl::InvalidArgumentError("expected NAME RIGHTS TOKEN");
  Token token = {words[0], absl::StrSplit(words[1], ','), words[2]};
  for (const std::string& right : token.rights) {
    if (!IsRight(right)) {
      return absl::InvalidArgumentError(
          absl::StrCat("\"", right, "\" is no right: all, read or names of methods"));
    }
  }
  if (token.secret.size() < kShortestSecret) {
    return absl::InvalidArgumentError(
        absl::StrCat("the token of ", token.name, " is shorter than ", kShortestSecret));
  }
  return token;
}

}  // namespace

absl::StatusOr<std::vector<Token>> ParseTokens(absl::string_view text) {
  std::vector<Token> tokens;
  int number = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    line = absl::StripAsciiWhitespace(line.substr(0, line.find('#')));
    if (line.empty()) continue;
    absl::StatusOr<Token> token = ParseLine(line);
    if (!token.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("line ", number, ": ", token.status().message()));
    }
    tokens.push_back(*std::move(token));
  }
  if (tokens.empty()) return absl::InvalidArgumentError("there is no token");
  return tokens;
}

const Token* FindToken(const std::vector<Token>& tokens, absl::string_view secret) {
  const Token* found = nullptr;
  for (const Token& token : tokens) {
    if (Same(secret, token.secret)) found = &token;
  }
  return found;
}

bool Allows(const Token& token, absl::string_view method) {
  for (const std::string& right : token.rights) {
    if (right == kAll || right == method || (right == kRead && OnlyLooks(method))) return true;
  }
  return false;
}

}  // namespace gdn
