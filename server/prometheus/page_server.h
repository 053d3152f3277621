// One page over plain HTTP, for whoever asks.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "server/listen/listener.h"

namespace gdn {

struct Page {
  std::string path;
  std::string content_type;
  std::function<std::string()> text;  // of each answer; what it throws is an answer of status 500
};

// Who sends too slowly, too much or nothing holds a connection for `patience`, and no thread: there
// is one for all. Beyond kConnections at a time and socket they wait.
class PageServer {
 public:
  static constexpr int kConnections = 32;

  // A connection is closed after one answer, or after `patience` without a whole one.
  PageServer(Listener listener, Page page, std::chrono::milliseconds patience);
  // At once, whatever clients do.
  ~PageServer();

 private:
  class Impl;
  const std::unique_ptr<Impl> impl_;
};

}  // namespace gdn
