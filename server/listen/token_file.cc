#include "server/listen/token_file.h"

#include <fstream>
#include <sstream>
#include <utility>

#include "absl/strings/str_cat.h"

namespace gdn {
namespace {

absl::StatusOr<std::string> ReadAll(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  if (!file) return absl::NotFoundError(absl::StrCat("cannot read ", path));
  return text.str();
}

}  // namespace

absl::StatusOr<std::unique_ptr<TokenFile>> TokenFile::Open(const std::string& path,
                                                           absl::Duration interval, Report report) {
  std::unique_ptr<TokenFile> self(new TokenFile(path, std::move(report)));
  absl::StatusOr<std::string> text = ReadAll(path);
  if (!text.ok()) return text.status();
  absl::StatusOr<std::vector<Token>> tokens = ParseTokens(*text);
  if (!tokens.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", tokens.status().message()));
  }
  self->text_ = *std::move(text);
  self->tokens_ = std::make_shared<const std::vector<Token>>(*std::move(tokens));
  self->thread_ = std::thread([file = self.get(), interval] { file->Watch(interval); });
  return self;
}

TokenFile::~TokenFile() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  ended_.notify_all();
  if (thread_.joinable()) thread_.join();
}

std::shared_ptr<const std::vector<Token>> TokenFile::tokens() const {
  const std::lock_guard lock(mutex_);
  return tokens_;
}

void TokenFile::Watch(absl::Duration interval) {
  std::unique_lock lock(mutex_);
  while (!ended_.wait_for(lock, absl::ToChronoNanoseconds(interval), [this] { return ending_; })) {
    lock.unlock();
    Reload();
    lock.lock();
  }
}

void TokenFile::Reload() {
  absl::StatusOr<std::string> text = ReadAll(path_);
  if (!text.ok()) return report_(text.status());
  if (*text == text_) return;
  text_ = *std::move(text);
  absl::StatusOr<std::vector<Token>> tokens = ParseTokens(text_);
  if (!tokens.ok()) {
    return report_(
        absl::InvalidArgumentError(absl::StrCat(path_, ": ", tokens.status().message())));
  }
  {
    const std::lock_guard lock(mutex_);
    tokens_ = std::make_shared<const std::vector<Token>>(*std::move(tokens));
  }
  report_(absl::OkStatus());
}

}  // namespace gdn
