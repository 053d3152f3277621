#include "server/listen/token_file.h"

#include <unistd.h>

#include <cstdio>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gdn {
namespace {

using ::testing::HasSubstr;

class TokenFileTest : public ::testing::Test {
 protected:
  TokenFileTest() : path_(absl::StrCat(::testing::TempDir(), "/gdn_tokens_", getpid())) {}
  ~TokenFileTest() override { std::remove(path_.c_str()); }

  void Write(const std::string& text) { std::ofstream(path_) << text; }
  absl::StatusOr<std::unique_ptr<TokenFile>> Open() {
    return TokenFile::Open(path_, absl::Hours(1),
                           [this](const absl::Status& status) { reports_.push_back(status); });
  }

  const std::string path_;
  std::vector<absl::Status> reports_;
};

TEST_F(TokenFileTest, AFileThatIsNoGoodIsRefused) {
  EXPECT_EQ(Open().status().code(), absl::StatusCode::kNotFound);
  Write("a all short");
  EXPECT_EQ(Open().status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(Open().status().message()), HasSubstr(path_));
}

TEST_F(TokenFileTest, AChangeIsTaken) {
  Write("a all 0123456789abcdef");
  const auto file = Open();
  ASSERT_TRUE(file.ok()) << file.status();
  const auto before = (*file)->tokens();
  (*file)->Reload();
  EXPECT_TRUE(reports_.empty());
  EXPECT_EQ((*file)->tokens(), before);
  Write("b read fedcba9876543210");
  (*file)->Reload();
  ASSERT_EQ(reports_.size(), 1u);
  EXPECT_TRUE(reports_[0].ok());
  EXPECT_EQ((*file)->tokens()->at(0).name, "b");
  EXPECT_EQ(before->at(0).name, "a");  // a call under way keeps what it looks at
}

TEST_F(TokenFileTest, WhatIsWrongLeavesTheTokensOfBefore) {
  Write("a all 0123456789abcdef");
  const auto file = Open();
  ASSERT_TRUE(file.ok()) << file.status();
  Write("b");
  (*file)->Reload();
  (*file)->Reload();  // said once
  std::remove(path_.c_str());
  (*file)->Reload();
  ASSERT_EQ(reports_.size(), 2u);
  EXPECT_EQ(reports_[0].code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(reports_[1].code(), absl::StatusCode::kNotFound);
  EXPECT_EQ((*file)->tokens()->at(0).name, "a");
}

}  // namespace
}  // namespace gdn
