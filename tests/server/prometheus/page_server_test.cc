#include "server/prometheus/page_server.h"

#include <poll.h>
#include <sys/resource.h>

#include <stdexcept>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/tcp.h"

namespace gdn::test {
namespace {

using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr std::chrono::hours kForEver{1};
constexpr std::chrono::milliseconds kShort{50};

class PageServerTest : public ::testing::Test {
 protected:
  void Serve(
      std::chrono::milliseconds patience,
      std::function<std::string()> text = [] { return "the page"; }) {
    Listener listener = ListenOnLoopback();
    port_ = listener.address.port;
    server_ = std::make_unique<PageServer>(std::move(listener),
                                           Page{"/page", "text/css", std::move(text)}, patience);
  }
  FileDescriptor Connect() const {
    FileDescriptor fd = TcpSocket();
    test::Connect(fd, port_);
    return fd;
  }
  std::string Ask(const std::string& request) const {
    const FileDescriptor fd = Connect();
    EXPECT_TRUE(Send(fd, request + "\r\n\r\n"));
    return ReadAll(fd);
  }

  std::unique_ptr<PageServer> server_;
  std::string port_;
};

TEST_F(PageServerTest, ThePageIsAnsweredAndTheConnectionClosed) {
  Serve(kForEver);
  for (const char* request :
       {"GET /page HTTP/1.1\r\nHost: a", "GET /page HTTP/1.0", "GET /page?x=1 HTTP/1.1"}) {
    EXPECT_THAT(Ask(request),
                AllOf(StartsWith("HTTP/1.1 200 OK\r\n"), HasSubstr("Content-Type: text/css\r\n"),
                      HasSubstr("Connection: close\r\n"), HasSubstr("Content-Length: 8\r\n"),
                      EndsWith("\r\n\r\nthe page")));
  }
}

TEST_F(PageServerTest, EverySocketIsServed) {
  Listener both = ListenOnLoopback();
  const std::string first = both.address.port;
  Listener other = ListenOnLoopback();
  both.sockets.push_back(std::move(other.sockets[0]));
  const PageServer server(std::move(both), {"/page", "text/css", [] { return "a page"; }},
                          kForEver);
  for (const std::string& port : {first, other.address.port}) {
    port_ = port;
    EXPECT_THAT(Ask("GET /page HTTP/1.1"), EndsWith("a page"));
  }
}

TEST_F(PageServerTest, NothingElseIsServed) {
  Serve(kForEver);
  for (const char* target : {"/", "/pag", "/page/", "/pages", "*", "/../page", "http://a/page"}) {
    EXPECT_THAT(Ask(std::string("GET ") + target + " HTTP/1.1"), StartsWith("HTTP/1.1 404 "));
  }
  for (const char* method : {"HEAD", "POST", "DELETE", "BREW"}) {
    EXPECT_THAT(Ask(std::string(method) + " /page HTTP/1.1"),
                AllOf(StartsWith("HTTP/1.1 405 "), HasSubstr("Allow: GET\r\n")));
  }
}

TEST_F(PageServerTest, APageThatThrowsIsAnError) {
  int calls = 0;
  Serve(kForEver, [&]() -> std::string {
    if (++calls == 1) throw std::runtime_error("no page today");
    return "there";
  });
  EXPECT_THAT(Ask("GET /page HTTP/1.1"),
              AllOf(StartsWith("HTTP/1.1 500 "), EndsWith("no page today")));
  EXPECT_THAT(Ask("GET /page HTTP/1.1"), EndsWith("there"));
}

TEST_F(PageServerTest, WhatIsNoRequestIsHungUpOn) {
  Serve(kForEver);
  EXPECT_EQ(Ask("nonsense"), "");
  EXPECT_EQ(Ask(std::string("\x16\x03\x01\x02\0\x01", 6)), "");
  EXPECT_EQ(Ask("GET /page HTTP/1.1\r\nContent-Length: -1"), "");
  EXPECT_THAT(Ask("GET /page HTTP/1.1"), EndsWith("the page"));
}

TEST_F(PageServerTest, AHeaderWithoutEndIsHungUpOn) {
  Serve(kForEver);
  const auto send_for_ever = [this](const std::string& begin, const std::string& more) {
    const FileDescriptor fd = Connect();
    EXPECT_TRUE(Send(fd, begin));
    for (int i = 0; Send(fd, more); ++i) ASSERT_LT(i, 10'000'000);
  };
  send_for_ever("GET /page HTTP/1.1\r\n", "a: b\r\n");
  send_for_ever("GET /page HTTP/1.1\r\na: ", "b");
  send_for_ever("GET /", "page");
  EXPECT_THAT(Ask("GET /page HTTP/1.1"), EndsWith("the page"));
}

TEST_F(PageServerTest, SilentConnectionsDoNotHoldOthersUp) {
  Serve(kForEver);
  std::vector<FileDescriptor> silent;
  while (silent.size() + 1 < PageServer::kConnections) silent.push_back(Connect());
  Send(silent[0], "GET /page HT");
  EXPECT_THAT(Ask("GET /page HTTP/1.1"), EndsWith("the page"));
}

TEST_F(PageServerTest, SilentConnectionsAreOutlived) {
  Serve(kShort);
  std::vector<FileDescriptor> silent;
  while (silent.size() < 2 * PageServer::kConnections) silent.push_back(Connect());
  EXPECT_THAT(Ask("GET /page HTTP/1.1"), EndsWith("the page"));
  for (const FileDescriptor& fd : silent) EXPECT_EQ(ReadAll(fd), "");
}

TEST_F(PageServerTest, AByteNowAndThenRenewsNothing) {
  Serve(kShort);
  const FileDescriptor slow = Connect();
  pollfd closed = {slow.get(), POLLIN, 0};
  for (int sent = 0; poll(&closed, 1, 5) == 0; ++sent) {
    ASSERT_LT(sent, 1000);
    Send(slow, "G");
  }
}

TEST_F(PageServerTest, WhoDoesNotReadItsAnswerIsOutlived) {
  const std::string large(64 << 20, 'x');
  Serve(kShort, [&] { return large; });
  const FileDescriptor fd = Connect();
  EXPECT_TRUE(Send(fd, "GET /page HTTP/1.1\r\n\r\n"));
  char peeked;
  while (recv(fd.get(), &peeked, 1, MSG_PEEK) > 0 && Send(fd, "x")) std::this_thread::yield();
  EXPECT_LT(ReadAll(fd).size(), large.size());
}

TEST_F(PageServerTest, WithoutFileDescriptorsConnectionsWait) {
  Serve(kForEver);
  const FileDescriptor fd = TcpSocket();
  const timeval moment = {.tv_sec = 0, .tv_usec = 20'000};
  setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &moment, sizeof(moment));
  rlimit before = {};
  getrlimit(RLIMIT_NOFILE, &before);
  const rlimit none = {.rlim_cur = 0, .rlim_max = before.rlim_max};
  setrlimit(RLIMIT_NOFILE, &none);
  test::Connect(fd, port_);
  EXPECT_TRUE(Send(fd, "GET /page HTTP/1.1\r\n\r\n"));
  EXPECT_EQ(ReadAll(fd), "");
  setrlimit(RLIMIT_NOFILE, &before);
  const timeval for_ever = {};
  setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &for_ever, sizeof(for_ever));
  EXPECT_THAT(ReadAll(fd), EndsWith("the page"));
}

TEST_F(PageServerTest, ItEndsAtOnceWhateverClientsDo) {
  Serve(kForEver);
  std::vector<FileDescriptor> open;
  while (open.size() < 2 * PageServer::kConnections) open.push_back(Connect());
  for (const FileDescriptor& fd : open) Send(fd, "GET /page HTTP/1.1\r\n");
  server_.reset();
  for (const FileDescriptor& fd : open) EXPECT_EQ(ReadAll(fd), "");
}

}  // namespace
}  // namespace gdn::test
