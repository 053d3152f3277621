#include "client/cpp/http_get.h"

#include <poll.h>

#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/tcp.h"

namespace gdn::client {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

constexpr std::chrono::seconds kLong{60};
constexpr std::chrono::milliseconds kShort{50};

// Gives the first connection an answer, whatever it asks.
class Answerer {
 public:
  explicit Answerer(std::string answer)
      : listener_(test::ListenOnLoopback()),
        thread_([this, answer = std::move(answer)] { Run(answer); }) {}
  ~Answerer() { thread_.join(); }

  std::string address() const { return ToString(listener_.address); }

 private:
  void Run(const std::string& answer) {
    pollfd connected = {listener_.sockets[0].get(), POLLIN, 0};
    poll(&connected, 1, -1);
    const FileDescriptor fd(accept(connected.fd, nullptr, nullptr));
    char request[4096];
    recv(fd.get(), request, sizeof(request), 0);
    test::Send(fd, answer);
  }

  const Listener listener_;
  std::thread thread_;
};

struct Got {
  bool ok;
  std::string body;
  std::string why;
};

Got Get(const std::string& address, std::chrono::milliseconds patience = kLong) {
  Got got;
  got.ok = HttpGet(address, "/", patience, &got.body, &got.why);
  return got;
}

TEST(HttpGetTest, ThePageIsRead) {
  for (const char* answer :
       {"HTTP/1.0 200 OK\r\n\r\na page", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\na page",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\na page\r\n0\r\n\r\n"}) {
    const Answerer server(answer);
    const Got got = Get(server.address());
    EXPECT_TRUE(got.ok) << got.why;
    EXPECT_EQ(got.body, "a page");
  }
}

TEST(HttpGetTest, WhatIsNoPageIsSaid) {
  const auto expect = [](const char* answer, const char* reason) {
    const Answerer server(answer);
    const Got got = Get(server.address());
    EXPECT_FALSE(got.ok);
    EXPECT_THAT(got.why, AllOf(StartsWith(server.address() + ": "), HasSubstr(reason)));
  };
  expect("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "HTTP 404");
  expect("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort", "partial message");
  expect("nonsense\r\n\r\n", "version");
  expect("", "end of stream");
}

TEST(HttpGetTest, WhoDoesNotAnswerIsWaitedForNoLonger) {
  const Listener silent = test::ListenOnLoopback();
  const Got got = Get(ToString(silent.address), kShort);
  EXPECT_FALSE(got.ok);
  EXPECT_THAT(got.why, HasSubstr("timeout"));
}

TEST(HttpGetTest, WhereNobodyListensIsSaid) {
  const std::string address = ToString(test::ListenOnLoopback().address);
  EXPECT_THAT(Get(address).why, AllOf(HasSubstr(address), HasSubstr("refused")));
  // A machine without IPv6 has another reason, but knows what the host is.
  EXPECT_THAT(Get("[::1]:1").why, AllOf(StartsWith("[::1]:1: "), Not(HasSubstr("not found"))));
}

TEST(HttpGetTest, WhatIsNoAddressIsSaid) {
  for (const char* address : {"", "here", ":1", "here:"}) {
    EXPECT_THAT(Get(address).why, HasSubstr("expected host:port"));
  }
}

}  // namespace
}  // namespace gdn::client
