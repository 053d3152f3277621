#include "client/cpp/ctl.h"

#include <sstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/client/cpp/fake_server.h"

namespace gdn::client {
namespace {

using ::testing::ContainsRegex;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
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
  EXPECT_THAT(out_, StartsWith("SLOT  POSITION  STATE     AGE    LEASE  EPOCH  REQUEST_ID\n0  "));
  EXPECT_THAT(out_,
              ContainsRegex("\n3     7-8       live      1h59m  1m[0-9]+s  1003   request-3\n"));
  EXPECT_THAT(out_, HasSubstr("\n4     7         poisoned  "));
}

TEST_F(CtlTest, LsSortsByAgeAndByLease) {
  const auto first = [this] { return nlohmann::json::parse(out_)["sequences"][0]["slot"]; };
  EXPECT_EQ(Run({"ls", "--json", "--sort=age"}), 0);
  EXPECT_EQ(first(), 0);
  EXPECT_EQ(Run({"ls", "--json", "--sort=lease"}), 0);
  EXPECT_EQ(first(), 4);
}

TEST_F(CtlTest, JsonIsThatOfTheProto) {
  EXPECT_EQ(Run({"--json", "info"}), 0);
  const auto info = nlohmann::json::parse(out_);
  EXPECT_EQ(info["geometry"]["hidden_size"], 2048);
  EXPECT_EQ(info["data_type"], "DATA_TYPE_BF16");
  EXPECT_EQ(info["max_rows"], 0);
  EXPECT_EQ(Run({"ls", "--json"}), 0);
  const auto sequences = nlohmann::json::parse(out_)["sequences"];
  EXPECT_EQ(sequences.size(), 5u);
  EXPECT_EQ(sequences[3]["epoch"], "1003");
  EXPECT_EQ(Run({"health", "--json"}), 0);
  EXPECT_EQ(nlohmann::json::parse(out_)["status"], "SERVING");
  EXPECT_EQ(Run({"release", "--json", "a"}), 0);
  EXPECT_EQ(nlohmann::json::parse(out_)["request_ids"][0], "a");
}

TEST_F(CtlTest, AnErrorIsJsonToo) {
  server_.SetServing(false);
  EXPECT_EQ(Run({"health", "--json"}), 1);
  EXPECT_EQ(nlohmann::json::parse(err_)["error"]["message"], "NOT_SERVING");
  EXPECT_THAT(out_, IsEmpty());
}

TEST_F(CtlTest, BenchPrintsBothLoadsAndReleases) {
  EXPECT_EQ(Run({"bench", "--seconds=0.05", "--concurrency=2", "--rows=3", "--tokens=5"}), 0);
  EXPECT_THAT(out_, StartsWith("LOAD     CALLERS  ROWS  TOKENS  CALLS"));
  EXPECT_THAT(out_, ContainsRegex("\ndecode   2        3     1  "));
  EXPECT_THAT(out_, ContainsRegex("\nprefill  2        3     5  "));
  EXPECT_THAT(err_, HasSubstr("\rdecode [########################################] 100 % "));
  EXPECT_THAT(server_.sequences().released, SizeIs(3));
}

TEST_F(CtlTest, BenchCountsInJson) {
  EXPECT_EQ(Run({"bench", "decode", "--json", "--seconds=0.05", "--concurrency=1"}), 0);
  const auto bench = nlohmann::json::parse(out_);
  EXPECT_EQ(bench["decode"]["calls"], server_.gdn().steps.load());
  EXPECT_EQ(bench["decode"]["errors"], 0);
  EXPECT_LE(bench["decode"]["p50_seconds"], bench["decode"]["p99_seconds"]);
  EXPECT_LE(bench["decode"]["p99_seconds"], bench["decode"]["max_seconds"]);
  EXPECT_FALSE(bench.contains("prefill"));
  EXPECT_THAT(err_, IsEmpty());
}

TEST_F(CtlTest, TopOfNothingSaysWhere) {
  EXPECT_EQ(Run({"top", "--metrics=127.0.0.1:1", "--iterations=1"}), 1);
  EXPECT_THAT(err_, HasSubstr("127.0.0.1:1"));
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
                                             {"ls", "--sort=x"},
                                             {"bench", "x"},
                                             {"bench", "--rows=0"},
                                             {"bench", "--rows=2x"},
                                             {"top", "x"},
                                             {"ls", "--json=1"},
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
