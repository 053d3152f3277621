#include "server/listen/address.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gdn {
namespace {

using ::testing::HasSubstr;

TEST(AddressTest, ReadsBack) {
  for (const char* text : {"127.0.0.1:50051", "localhost:0", "[::1]:1", "host.name:65535",
                           "unix:/run/gdn.sock", "unix:relative"}) {
    const auto address = ParseAddress(text);
    ASSERT_TRUE(address.ok()) << address.status();
    EXPECT_EQ(ToString(*address), text);
  }
  EXPECT_EQ(ParseAddress("unix:///run/gdn.sock")->path, "/run/gdn.sock");
  EXPECT_EQ(ParseAddress("[::1]:7")->host, "::1");
}

TEST(AddressTest, WhatIsNoneIsNamed) {
  for (const std::string& text :
       {std::string("host"), std::string("host:"), std::string("host:x"), std::string("host:65536"),
        std::string("host:-1"), std::string(":1"), std::string("::1:1"), std::string("unix:"),
        "unix:/" + std::string(107, 'x')}) {
    const auto address = ParseAddress(text);
    EXPECT_EQ(address.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(address.status().message()), HasSubstr(text));
  }
}

TEST(AddressTest, OnlyThisMachineIsLocal) {
  for (const char* text : {"127.0.0.1:1", "127.255.0.3:1", "[::1]:1", "localhost:1", "unix:/x"}) {
    EXPECT_TRUE(IsLocal(*ParseAddress(text))) << text;
  }
  for (const char* text : {"0.0.0.0:1", "[::]:1", "10.0.0.1:1", "host:1", "[::ffff:127.0.0.1]:1",
                           "localhost.example:1", "127.0.0.1.example:1"}) {
    EXPECT_FALSE(IsLocal(*ParseAddress(text))) << text;
  }
}

}  // namespace
}  // namespace gdn
