#include "client/cpp/ctl.h"

#include <sstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/client/cpp/fake_server.h"

namespace gdn::client {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

class CtlTest : public ::testing::Test {
 protected:
  // The exit code; what was printed is in out_ and err_.
  int Run(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "--target=" + server_.target());
    return RunAlone(arguments);
  }

  int RunAlone(const std::vector<std::string>& arguments) {
    std::ostringstream out, err;
    const int code = RunCtl(arguments, out, err);
    out_ = out.str();
    err_ = err.str();
    return code;
  }

  FakeServer server_;
  std::string out_, err_;
};

TEST_F(CtlTest, InfoPrintsTheFacts) {
  EXPECT_EQ(Run({"info"}), 0);
  EXPECT_THAT(out_, StartsWith("version                 1.2.3\n"));
  EXPECT_THAT(out_, HasSubstr("layers                  0 4\n"));
  EXPECT_THAT(out_, HasSubstr("input_layouts           HIDDEN QKV_B_A\n"));
  EXPECT_THAT(out_, HasSubstr("slots                   17 of 1000 used\n"));
  EXPECT_THAT(err_, IsEmpty());
}

TEST_F(CtlTest, LsPrintsATable) {
  EXPECT_EQ(Run({"ls"}), 0);
  EXPECT_THAT(out_, StartsWith("SLOT  POSITION  STATE     EXPIRES"));
  EXPECT_THAT(out_,
              HasSubstr("\n3     7-8       live      2001-09-09T01:46:40Z  1003   request-3\n"));
  EXPECT_THAT(out_, HasSubstr("\n4     7         poisoned  "));
}

TEST_F(CtlTest, HealthIsAlsoTheExitCode) {
  EXPECT_EQ(Run({"health"}), 0);
  EXPECT_EQ(out_, "SERVING\n");
  server_.SetServing(false);
  EXPECT_EQ(Run({"health"}), 1);
  EXPECT_THAT(err_, HasSubstr("NOT_SERVING"));
}

TEST_F(CtlTest, ReleaseNamesSequences) {
  EXPECT_EQ(Run({"release", "a", "b"}), 0);
  EXPECT_THAT(server_.sequences().released, ElementsAre("a", "b"));
}

TEST_F(CtlTest, AFailedCallSaysWhy) {
  EXPECT_EQ(RunAlone({"--target=unix:/nonexistent/socket", "ls"}), 1);
  EXPECT_THAT(out_, IsEmpty());
  EXPECT_THAT(err_, StartsWith("gdn-ctl: UNAVAILABLE: "));
}

TEST_F(CtlTest, ATokenFileThatHasNoneIsNamed) {
  EXPECT_EQ(Run({"--token_file=/no/such/file", "info"}), 2);
  EXPECT_EQ(err_, "gdn-ctl: no token in /no/such/file\n");
}

TEST_F(CtlTest, WrongUsageIsTwo) {
  for (const std::vector<std::string>& arguments :
       std::vector<std::vector<std::string>>{{},
                                             {"fly"},
                                             {"release"},
                                             {"info", "x"},
                                             {"--targe=x", "info"},
                                             {"--target=", "info"},
                                             {"--target", "info"},
                                             {"--tls=yes", "info"},
                                             {"--tls_ca", "info"},
                                             {"--tls_cat=x", "info"}}) {
    EXPECT_EQ(RunAlone(arguments), 2);
    EXPECT_THAT(err_, StartsWith("usage: gdn-ctl"));
    EXPECT_THAT(out_, IsEmpty());
  }
  EXPECT_EQ(RunAlone({"--help"}), 0);
  EXPECT_THAT(out_, StartsWith("usage: gdn-ctl"));
}

}  // namespace
}  // namespace gdn::client
