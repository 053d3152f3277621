#include "server/config.h"

#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/wire/codec.h"

namespace gdn {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class ConfigTest : public ::testing::Test {
 protected:
  ConfigTest()
      : file_(absl::StrCat(::testing::TempDir(), "/gdn_config_", getpid(), ".textproto")) {}
  ~ConfigTest() override { std::remove(file_.c_str()); }

  void Write(const std::string& text) { std::ofstream(file_) << text; }
  // The configuration of flags that are to be good.
  static config::ServerConfig Parsed(const std::vector<std::string>& args) {
    const auto config = ParseFlags(args);
    EXPECT_TRUE(config.ok()) << config.status();
    return config.value_or(config::ServerConfig());
  }
  static std::string Refusal(const std::vector<std::string>& args) {
    const auto config = ParseFlags(args);
    const absl::Status status = config.ok() ? Validate(*config) : config.status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  }

  const std::string file_;
};

TEST_F(ConfigTest, DefaultsNeedOnlyAModel) {
  const config::ServerConfig config = Parsed({"--model=/m"});
  EXPECT_TRUE(Validate(config).ok()) << Validate(config);
  EXPECT_EQ(config.slots(), 64);
  EXPECT_THAT(Addresses(config), ElementsAre("127.0.0.1:50051"));
  EXPECT_EQ(DurationOf(config.step_ttl()), absl::Seconds(60));
}

TEST_F(ConfigTest, FlagsOfEveryType) {
  const config::ServerConfig config =
      Parsed({"--model=a=b", "--slots=7", "--replay_bytes=5000000000", "--allow_synthetic_input",
              "--reflection=false", "--listen=a:1,unix:/x,,b:2", "--step_ttl=1m30s"});
  EXPECT_EQ(config.model(), "a=b");
  EXPECT_EQ(config.slots(), 7);
  EXPECT_EQ(config.replay_bytes(), 5000000000);
  EXPECT_TRUE(config.allow_synthetic_input());
  EXPECT_FALSE(config.reflection());
  EXPECT_THAT(Addresses(config), ElementsAre("a:1", "unix:/x", "b:2"));
  EXPECT_EQ(DurationOf(config.step_ttl()), absl::Seconds(90));
}

TEST_F(ConfigTest, FlagsWinOverTheFileWhereverTheyStand) {
  Write("slots: 5 max_rows: 9 model: '/file'");
  const std::string flag = absl::StrCat("--config=", file_);
  for (const auto& args : {std::vector<std::string>{flag, "--slots=6"}, {"--slots=6", flag}}) {
    const config::ServerConfig config = Parsed(args);
    EXPECT_EQ(config.slots(), 6);
    EXPECT_EQ(config.max_rows(), 9);
    EXPECT_EQ(config.model(), "/file");
  }
}

TEST_F(ConfigTest, TheFilesFaultsAreNamedByLine) {
  Write("slots: 5\nslot: 6\n");
  EXPECT_THAT(Refusal({absl::StrCat("--config=", file_)}),
              AllOf(HasSubstr(file_), HasSubstr(":2:")));
  EXPECT_THAT(Refusal({"--config=/no/such/file"}), HasSubstr("/no/such/file"));
  EXPECT_THAT(Refusal({absl::StrCat("--config=", ::testing::TempDir())}),
              HasSubstr("cannot read"));  // a directory
  Write("");
  EXPECT_EQ(Parsed({absl::StrCat("--config=", file_)}).slots(), 64);
}

TEST_F(ConfigTest, FlagsThatDoNotParseAreNamed) {
  EXPECT_THAT(Refusal({"--slot=5"}), HasSubstr("--slot"));
  EXPECT_THAT(Refusal({"--slots"}), HasSubstr("--slots"));
  EXPECT_THAT(Refusal({"--slots="}), HasSubstr("--slots"));
  EXPECT_THAT(Refusal({"--slots=3000000000"}), HasSubstr("--slots"));
  EXPECT_THAT(Refusal({"--slots=x"}), AllOf(HasSubstr("--slots"), HasSubstr("\"x\"")));
  EXPECT_THAT(Refusal({"--reflection=maybe"}), HasSubstr("--reflection"));
  EXPECT_THAT(Refusal({"slots=5"}), HasSubstr("slots=5"));
  EXPECT_THAT(Refusal({"-slots=5"}), HasSubstr("-slots=5"));
}

TEST_F(ConfigTest, ValuesOutOfRangeAreNamed) {
  EXPECT_THAT(Refusal({}), HasSubstr("--model"));
  for (const char* flag : {"--listen=",
                           "--dtype=int8",
                           "--state_dtype=fp16",
                           "--backend=tpu",
                           "--log_level=loud",
                           "--slots=0",
                           "--max_rows=0",
                           "--max_rows=32769",
                           "--max_tokens=0",
                           "--max_decode_tokens=0",
                           "--max_message_bytes=-1",
                           "--max_queue_steps=0",
                           "--max_queue_bytes=0",
                           "--replay_bytes=-1",
                           "--threads=-1",
                           "--step_ttl=60",
                           "--max_ttl=inf",
                           "--prefill_max_wait=-1s",
                           "--drain_timeout=soon",
                           "--max_queue_rows=0",
                           "--prefill_chunk=100",
                           "--prefill_chunk=-64",
                           "--unix_socket_mode=",
                           "--unix_socket_mode=0888",
                           "--unix_socket_mode=7777",
                           "--unix_socket_mode=rw",
                           "--reload_interval=10ms",
                           "--max_connection_idle=0s",
                           "--max_connections=0",
                           "--max_streams=0",
                           "--max_metadata_bytes=100",
                           "--tls_cert=/c",
                           "--tls_key=/k",
                           "--tls_client_ca=/a",
                           "--listen=nowhere"}) {
    const std::string name(flag, std::string(flag).find('='));
    EXPECT_THAT(Refusal({"--model=/m", flag}), HasSubstr(name)) << flag;
  }
}

TEST_F(ConfigTest, PlainTextToOtherHostsMustBeWanted) {
  const auto flags = [](const char* listen, std::vector<std::string> more) {
    more.insert(more.end(), {"--model=/m", absl::StrCat("--listen=", listen)});
    return more;
  };
  EXPECT_THAT(Refusal(flags("127.0.0.1:1,0.0.0.0:2", {})),
              AllOf(HasSubstr("0.0.0.0:2"), HasSubstr("--insecure"), HasSubstr("--tls_cert")));
  EXPECT_TRUE(Validate(Parsed(flags("0.0.0.0:2", {"--insecure"}))).ok());
  EXPECT_TRUE(Validate(Parsed(flags("0.0.0.0:2", {"--tls_cert=/c", "--tls_key=/k"}))).ok());
  EXPECT_TRUE(Validate(Parsed(flags("unix:/x,[::1]:1,localhost:2", {}))).ok());
}

TEST_F(ConfigTest, SocketModesAreOctal) {
  EXPECT_EQ(UnixSocketMode(Parsed({"--model=/m"})), 0600u);
  EXPECT_EQ(UnixSocketMode(Parsed({"--model=/m", "--unix_socket_mode=660"})), 0660u);
}

TEST_F(ConfigTest, TheCodecKeepsAsManyRowsAsMayBeAllowed) {
  const config::ServerConfig config = Parsed({"--model=/m", "--max_rows=32768"});
  EXPECT_TRUE(Validate(config).ok());
  EXPECT_LT(static_cast<size_t>(config.max_rows()), kMaxRequestIds);
}

TEST_F(ConfigTest, HelpAndAsFlagsNameEveryField) {
  const std::string help = FlagHelp();
  const std::string flags = AsFlags(Parsed({"--model=/m"}));
  const auto* descriptor = config::ServerConfig::descriptor();
  for (int i = 0; i < descriptor->field_count(); ++i) {
    const auto& field = *descriptor->field(i);
    EXPECT_THAT(help, HasSubstr(absl::StrCat("--", field.name(), " "))) << field.name();
    EXPECT_THAT(flags, HasSubstr(absl::StrCat("--", field.name(), "="))) << field.name();
    EXPECT_NE(field.options().GetExtension(config::help), "") << field.name();
  }
}

TEST_F(ConfigTest, AsFlagsReadsBack) {
  const config::ServerConfig config = Parsed({"--model=/m", "--slots=3", "--reflection=false"});
  std::vector<std::string> args;
  std::istringstream words(AsFlags(config));
  for (std::string word; words >> word;) args.push_back(word);
  EXPECT_EQ(AsFlags(Parsed(args)), AsFlags(config));
}

}  // namespace
}  // namespace gdn
