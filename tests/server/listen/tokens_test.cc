#include "server/listen/tokens.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gdn {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kFile[] = R"(# who may call what
orchestrator  all                 0123456789abcdef
dashboard     read                fedcba9876543210   # rotated in May

	bench	Prefill,Decode	0123456789abcdeX	)"
                         "\r\n";

std::string Refusal(const std::string& text) {
  const auto tokens = ParseTokens(text);
  EXPECT_EQ(tokens.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(tokens.status().message());
}

TEST(TokensTest, ALineIsAToken) {
  const auto tokens = ParseTokens(kFile);
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  ASSERT_EQ(tokens->size(), 3u);
  EXPECT_EQ((*tokens)[0].name, "orchestrator");
  EXPECT_EQ((*tokens)[1].secret, "fedcba9876543210");
  EXPECT_THAT((*tokens)[2].rights, ElementsAre("Prefill", "Decode"));
  EXPECT_EQ((*tokens)[2].secret, "0123456789abcdeX");
}

TEST(TokensTest, OnlyTheWholeSecretIsFound) {
  const auto tokens = *ParseTokens(kFile);
  EXPECT_EQ(FindToken(tokens, "fedcba9876543210"), &tokens[1]);
  for (const char* other : {"", "f", "fedcba987654321", "fedcba98765432100", "Fedcba9876543210",
                            "fedcba9876543210fedcba9876543210"}) {
    EXPECT_EQ(FindToken(tokens, other), nullptr) << other;
  }
}

TEST(TokensTest, Rights) {
  const auto tokens = *ParseTokens(kFile);
  const auto allowed = [&](const Token& token) {
    std::vector<std::string> methods;
    for (const char* method :
         {"GetServerInfo", "ListSequences", "Prefill", "Stream", "ReleaseSequences"}) {
      if (Allows(token, method)) methods.emplace_back(method);
    }
    return methods;
  };
  EXPECT_EQ(allowed(tokens[0]).size(), 5u);
  EXPECT_THAT(allowed(tokens[1]), ElementsAre("GetServerInfo", "ListSequences"));
  EXPECT_THAT(allowed(tokens[2]), ElementsAre("Prefill"));
}

TEST(TokensTest, MistakesAreNamedByLineAndSecretsAreNot) {
  EXPECT_THAT(Refusal("a all\n"), HasSubstr("line 1"));
  EXPECT_THAT(Refusal("\na all 0123456789abcdef more"), HasSubstr("line 2"));
  EXPECT_THAT(Refusal("a write 0123456789abcdef"),
              AllOf(HasSubstr("\"write\""), Not(HasSubstr("0123456789abcdef"))));
  EXPECT_THAT(Refusal("a all, 0123456789abcdef"), HasSubstr("\"\" is no right"));
  EXPECT_THAT(Refusal("a all secret"), AllOf(HasSubstr("shorter"), Not(HasSubstr("secret"))));
}

TEST(TokensTest, NoTokenWouldLockEverybodyOut) {
  EXPECT_THAT(Refusal(""), HasSubstr("no token"));
  EXPECT_THAT(Refusal("# nobody\n"), HasSubstr("no token"));
}

}  // namespace
}  // namespace gdn
