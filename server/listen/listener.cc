#include "server/listen/listener.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "absl/strings/str_cat.h"

namespace gdn {
namespace {

constexpr int kBacklog = 512;

absl::Status CannotListen(const Address& address, absl::string_view why) {
  return absl::UnavailableError(absl::StrCat("cannot listen on ", ToString(address), ": ", why));
}

FileDescriptor NewSocket(int family) {
  return FileDescriptor(socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
}

bool Bind(int fd, const void* name, socklen_t size) {
  return bind(fd, static_cast<const sockaddr*>(name), size) == 0 && listen(fd, kBacklog) == 0;
}

// A socket file may be what is left of a process that was killed.
bool IsListenedOn(const sockaddr_un& name) {
  const FileDescriptor fd = NewSocket(AF_UNIX);
  const int result = connect(fd.get(), reinterpret_cast<const sockaddr*>(&name), sizeof(name));
  return result == 0 || errno == EAGAIN;  // EAGAIN: its backlog is full
}

absl::StatusOr<Listener> ListenUnix(const Address& address, mode_t mode) {
  sockaddr_un name = {};
  name.sun_family = AF_UNIX;
  address.path.copy(name.sun_path, sizeof(name.sun_path) - 1);
  struct stat status = {};
  if (lstat(name.sun_path, &status) == 0 && S_ISSOCK(status.st_mode)) {
    if (IsListenedOn(name)) return CannotListen(address, std::strerror(EADDRINUSE));
    unlink(name.sun_path);
  }

  FileDescriptor fd = NewSocket(AF_UNIX);
  // Of the whole process, but the server's other threads make no files while it starts.
  const mode_t umask_before = umask(0777 & ~mode);
  const bool bound = Bind(fd.get(), &name, sizeof(name));
  const int error = errno;
  umask(umask_before);
  if (!bound) return CannotListen(address, std::strerror(error));
  Listener listener;
  listener.sockets.push_back(std::move(fd));
  listener.address = address;
  if (lstat(name.sun_path, &status) == 0) listener.inode = status.st_ino;
  return listener;
}

FileDescriptor ListenTcp(const addrinfo& info) {
  const int on = 1;
  const int off = 0;
  FileDescriptor fd = NewSocket(info.ai_family);
  setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  // Connections inherit it.
  setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  if (info.ai_family == AF_INET6) {
    setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));  // [::] takes IPv4 as well
  }
  return Bind(fd.get(), info.ai_addr, info.ai_addrlen) ? std::move(fd) : FileDescriptor();
}

std::string PortOf(int fd) {
  sockaddr_storage name = {};
  socklen_t size = sizeof(name);
  getsockname(fd, reinterpret_cast<sockaddr*>(&name), &size);
  // The port stands at the same place for both families.
  return absl::StrCat(ntohs(reinterpret_cast<const sockaddr_in*>(&name)->sin_port));
}

// Listens on every address of the name; a free port is chosen once.
absl::StatusOr<Listener> ListenTcp(const Address& address) {
  addrinfo hints = {};
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int failed = getaddrinfo(address.host.c_str(), address.port.c_str(), &hints, &found);
  if (failed != 0) return CannotListen(address, gai_strerror(failed));
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> addresses(found, freeaddrinfo);

  Listener listener;
  listener.address = address;
  int error = 0;
  for (const addrinfo* info = found; info != nullptr; info = info->ai_next) {
    if (!listener.sockets.empty()) {
      reinterpret_cast<sockaddr_in*>(info->ai_addr)->sin_port =
          htons(static_cast<uint16_t>(std::stoi(listener.address.port)));
    }
    FileDescriptor fd = ListenTcp(*info);
    if (fd.get() < 0) {
      error = errno;
      continue;
    }
    listener.address.port = PortOf(fd.get());
    listener.sockets.push_back(std::move(fd));
  }
  if (listener.sockets.empty()) return CannotListen(address, std::strerror(error));
  return listener;
}

}  // namespace

FileDescriptor::~FileDescriptor() {
  if (fd_ >= 0) close(fd_);
}

absl::StatusOr<Listener> Listen(const Address& address, mode_t unix_mode) {
  return address.is_unix() ? ListenUnix(address, unix_mode) : ListenTcp(address);
}

}  // namespace gdn
