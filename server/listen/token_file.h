// The tokens in force: those of a file, read anew when it changes.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/listen/tokens.h"

namespace gdn {

class TokenFile {
 public:
  // OK when new tokens are in force; else why those of before stay. Called on the file's thread.
  using Report = std::function<void(const absl::Status&)>;

  // Looks at the file every `interval`. INVALID_ARGUMENT or NOT_FOUND where it is no good now.
  static absl::StatusOr<std::unique_ptr<TokenFile>> Open(const std::string& path,
                                                         absl::Duration interval, Report report);
  ~TokenFile();

  std::shared_ptr<const std::vector<Token>> tokens() const;
  // Looks at the file now.
  void Reload();

 private:
  TokenFile(std::string path, Report report) : path_(std::move(path)), report_(std::move(report)) {}
  void Watch(absl::Duration interval);

  const std::string path_;
  const Report report_;
  std::string text_;  // as read last, good or not; of the thread that reloads

  mutable std::mutex mutex_;
  std::condition_variable ended_;
  bool ending_ = false;
  std::shared_ptr<const std::vector<Token>> tokens_;
  std::thread thread_;
};

}  // namespace gdn
