// Bare connections, for what speaks HTTP.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <cstdint>
#include <string>
#include <utility>

#include "gtest/gtest.h"
#include "server/listen/listener.h"

namespace gdn::test {

inline Listener ListenOnLoopback() {
  auto listener = Listen({.host = "127.0.0.1", .port = "0"}, 0);
  EXPECT_TRUE(listener.ok()) << listener.status();
  return *std::move(listener);
}

inline FileDescriptor TcpSocket() {
  return FileDescriptor(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
}

inline void Connect(const FileDescriptor& fd, const std::string& port) {
  sockaddr_in name = {};
  name.sin_family = AF_INET;
  name.sin_port = htons(static_cast<uint16_t>(std::stoi(port)));
  name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(connect(fd.get(), reinterpret_cast<const sockaddr*>(&name), sizeof(name)), 0);
}

// False where the other side has closed.
inline bool Send(const FileDescriptor& fd, const std::string& text) {
  return send(fd.get(), text.data(), text.size(), MSG_NOSIGNAL) ==
         static_cast<ssize_t>(text.size());
}

// All until the other side closes.
inline std::string ReadAll(const FileDescriptor& fd) {
  std::string all;
  char piece[4096];
  for (ssize_t got; (got = recv(fd.get(), piece, sizeof(piece), 0)) > 0;) {
    all.append(piece, static_cast<size_t>(got));
  }
  return all;
}

}  // namespace gdn::test
