#include "server/listen/acceptor.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "absl/strings/str_cat.h"

namespace gdn {
namespace {

constexpr rlim_t kFilesBesides = 512;  // checkpoint, devices, gRPC's own

FileDescriptor Spare() { return FileDescriptor(open("/dev/null", O_RDONLY | O_CLOEXEC)); }

}  // namespace

absl::Status Acceptor::ReserveFiles(int max_connections, size_t addresses) {
  rlimit limit = {};
  getrlimit(RLIMIT_NOFILE, &limit);
  const rlim_t needed = 2 * addresses * static_cast<rlim_t>(max_connections) + kFilesBesides;
  if (limit.rlim_cur >= needed) return absl::OkStatus();
  if (limit.rlim_max < needed) {
    return absl::FailedPreconditionError(
        absl::StrCat("--max_connections=", max_connections, " takes ", needed,
                     " file descriptors, and the process may have ", limit.rlim_max));
  }
  limit.rlim_cur = needed;
  setrlimit(RLIMIT_NOFILE, &limit);
  return absl::OkStatus();
}

Acceptor::Acceptor(std::vector<Door> doors, int max_connections)
    : doors_(std::move(doors)),
      max_connections_(max_connections),
      epoll_(epoll_create1(EPOLL_CLOEXEC)),
      wake_(eventfd(0, EFD_CLOEXEC)),
      spare_(Spare()) {
  const auto add = [this](int fd) {
    epoll_event event = {.events = EPOLLIN, .data = {.fd = fd}};
    epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event);
  };
  add(wake_.get());
  for (const Door& door : doors_) {
    for (const FileDescriptor& socket : door.listener.sockets) add(socket.get());
  }
  thread_ = std::thread([this] { Run(); });
}

Acceptor::~Acceptor() {
  eventfd_write(wake_.get(), 1);
  thread_.join();
  for (const auto& [fd, door] : connections_) close(fd);
  for (const Door& door : doors_) {
    if (!door.listener.address.is_unix()) continue;
    const char* path = door.listener.address.path.c_str();
    struct stat status = {};  // it may be a successor's by now
    if (lstat(path, &status) == 0 && status.st_ino == door.listener.inode) unlink(path);
  }
}

void Acceptor::Run() {
  std::array<epoll_event, 64> events;
  for (;;) {
    const int count = epoll_wait(epoll_.get(), events.data(), events.size(), -1);
    for (int i = 0; i < count; ++i) {
      const int fd = events[i].data.fd;
      if (fd == wake_.get()) return;
      if (const auto ended = connections_.find(fd); ended != connections_.end()) {
        --ended->second->connections;
        connections_.erase(ended);
        // gRPC may still hold the connection, and it would be reported until that lets go.
        epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
        close(fd);
        continue;
      }
      for (Door& door : doors_) {
        for (const FileDescriptor& socket : door.listener.sockets) {
          if (socket.get() == fd) Accept(fd, &door);
        }
      }
    }
  }
}

void Acceptor::Accept(int socket, Door* door) {
  if (spare_.get() < 0) spare_ = Spare();
  FileDescriptor connection(accept4(socket, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (connection.get() < 0) {
    if (errno == EMFILE || errno == ENFILE) Refuse(socket);
    return;
  }
  if (door->connections >= max_connections_ || !Watch(connection.get(), door)) return;
  grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters parameters;
  parameters.listener_fd = socket;
  parameters.fd = connection.release();
  door->server->HandleNewConnection(&parameters);
}

// Without a file to spare the connection would wait in the backlog, and its listener wake us for
// ever.
void Acceptor::Refuse(int socket) {
  spare_ = FileDescriptor();
  const FileDescriptor refused(accept4(socket, nullptr, nullptr, SOCK_CLOEXEC));
  spare_ = Spare();
}

bool Acceptor::Watch(int fd, Door* door) {
  FileDescriptor second(fcntl(fd, F_DUPFD_CLOEXEC, 0));
  epoll_event event = {.events = 0, .data = {.fd = second.get()}};  // EPOLLHUP comes anyway
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, second.get(), &event) != 0) return false;
  connections_[second.release()] = door;
  ++door->connections;
  return true;
}

}  // namespace gdn
