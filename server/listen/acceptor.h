// Takes connections and hands them to gRPC, no more than a limit at a time and address.
//
// gRPC could accept by itself, but 1.51 knows no limit, and once the process is out of file
// descriptors it never accepts again (CVE-2023-4785).
#pragma once

#include <memory>
#include <thread>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "grpcpp/server_builder.h"
#include "server/listen/listener.h"

namespace gdn {

// A listener and the side of gRPC's server that takes its connections.
struct Door {
  Listener listener;
  std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> server;
  int connections = 0;
};

class Acceptor {
 public:
  // Begins to accept. A connection beyond `max_connections` of its address is closed at once.
  Acceptor(std::vector<Door> doors, int max_connections);
  // Accepts no more and removes Unix sockets; connections stay.
  ~Acceptor();

  // Lets the process have the file descriptors that so many connections of so many addresses take.
  // FAILED_PRECONDITION where its hard limit does not allow it.
  static absl::Status ReserveFiles(int max_connections, size_t addresses);

 private:
  void Run();
  void Accept(int socket, Door* door);
  void Refuse(int socket);
  bool Watch(int fd, Door* door);

  std::vector<Door> doors_;
  const int max_connections_;
  FileDescriptor epoll_;
  FileDescriptor wake_;
  FileDescriptor spare_;
  // A second descriptor of each open connection, by which its end shows: when either side shuts it
  // down, it hangs up.
  std::unordered_map<int, Door*> connections_;
  std::thread thread_;
};

}  // namespace gdn
