// Answers that are too large for the answer pool, kept on the host for replay, newest first, within
// a number of bytes. (Decode answers live in the backend's answer pool for the life of a sequence.)
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <span>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"

namespace gdn {

class AnswerStore {
 public:
  explicit AnswerStore(size_t capacity_bytes) : capacity_(capacity_bytes) {}

  // Keeps a copy of `answer` as the last one of `epoch` at `layer`, dropping the oldest answers as
  // room demands. One that is larger than the capacity is not kept.
  void Put(uint64_t epoch, int layer, std::span<const std::byte> answer);
  // The answer, or null. Valid until the next call.
  const std::string* Find(uint64_t epoch, int layer) const;
  void Erase(uint64_t epoch, int layer);
  // Every layer of a sequence that ended.
  void EraseSequence(uint64_t epoch, int layers);

  size_t bytes() const { return bytes_; }

 private:
  using Key = std::pair<uint64_t, int>;
  struct Entry {
    Key key;
    std::string answer;
  };

  size_t capacity_;
  size_t bytes_ = 0;
  std::list<Entry> newest_first_;
  absl::flat_hash_map<Key, std::list<Entry>::iterator> index_;
};

}  // namespace gdn
