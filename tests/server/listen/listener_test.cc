#include "server/listen/listener.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gdn {
namespace {

using ::testing::HasSubstr;

class ListenerTest : public ::testing::Test {
 protected:
  ListenerTest() {
    std::string folder = absl::StrCat(::testing::TempDir(), "/gdn_XXXXXX");
    folder_ = mkdtemp(folder.data());
    path_ = folder_ + "/socket";
  }
  ~ListenerTest() override { std::filesystem::remove_all(folder_); }

  absl::StatusOr<Listener> OnPath(mode_t mode = 0600) { return Listen({.path = path_}, mode); }
  mode_t ModeOf(const std::string& path) {
    struct stat found = {};
    stat(path.c_str(), &found);
    return found.st_mode & 0777;
  }

  std::string folder_, path_;
};

TEST_F(ListenerTest, AUnixSocketHasItsMode) {
  const mode_t before = umask(022);
  for (const mode_t mode : {0600, 0660, 0666}) {
    const auto listener = OnPath(mode);
    ASSERT_TRUE(listener.ok()) << listener.status();
    EXPECT_EQ(ModeOf(path_), mode);
  }
  std::ofstream(folder_ + "/file");
  EXPECT_EQ(ModeOf(folder_ + "/file"), 0644u);  // the umask is as it was
  umask(before);
}

TEST_F(ListenerTest, ASocketThatIsListenedOnIsLeftAlone) {
  const auto first = OnPath();
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(OnPath().status().code(), absl::StatusCode::kUnavailable);
  struct stat status = {};
  ASSERT_EQ(lstat(path_.c_str(), &status), 0);
  EXPECT_EQ(status.st_ino, first->inode);
}

TEST_F(ListenerTest, AnOldSocketIsReplacedAndAFileIsNot) {
  ASSERT_TRUE(OnPath().ok());
  ASSERT_TRUE(OnPath().ok());
  std::filesystem::remove(path_);
  std::ofstream(path_) << "precious";
  const auto listener = OnPath();
  EXPECT_EQ(listener.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(listener.status().message()), HasSubstr(path_));
  EXPECT_TRUE(std::filesystem::is_regular_file(path_));
}

TEST_F(ListenerTest, AFreePortIsOneForEveryAddressOfAName) {
  const auto listener = Listen({.host = "localhost", .port = "0"}, 0);
  ASSERT_TRUE(listener.ok()) << listener.status();
  EXPECT_NE(listener->address.port, "0");
  for (const FileDescriptor& socket : listener->sockets) {
    sockaddr_in6 name = {};
    socklen_t size = sizeof(name);
    getsockname(socket.get(), reinterpret_cast<sockaddr*>(&name), &size);
    EXPECT_EQ(absl::StrCat(ntohs(name.sin6_port)), listener->address.port);
  }
}

TEST_F(ListenerTest, AnAddressInUseIsNamed) {
  const auto first = Listen({.host = "127.0.0.1", .port = "0"}, 0);
  ASSERT_TRUE(first.ok()) << first.status();
  const auto second = Listen(first->address, 0);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(
      std::string(second.status().message()),
      HasSubstr("cannot listen on " + ToString(first->address) + ": Address already in use"));
}

}  // namespace
}  // namespace gdn
