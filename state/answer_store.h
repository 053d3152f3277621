// Answers that are too large for the answer pool, kept on the host for replay, newest first, within
// a number of bytes. (Decode answers live in the backend's answer pool for the life of a sequence.)
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <span>
#include <utility>

#include "absl/container/flat_hash_map.h"

namespace gdn {

// An answer's memory.
class KeptAnswer {
 public:
  explicit KeptAnswer(size_t size)
      : memory_(std::make_unique_for_overwrite<std::byte[]>(size)), size_(size) {}

  std::span<std::byte> bytes() { return {memory_.get(), size_}; }
  std::span<const std::byte> bytes() const { return {memory_.get(), size_}; }

 private:
  const std::unique_ptr<std::byte[]> memory_;
  const size_t size_;
};

class AnswerStore {
 public:
  explicit AnswerStore(size_t capacity_bytes) : capacity_(capacity_bytes) {}

  // Keeps an answer of `size` as the last one of `epoch` at `layer`, dropping the oldest answers as
  // room demands; the caller writes it to what this returns. One that is larger than the capacity
  // is not kept: empty then.
  std::span<std::byte> Put(uint64_t epoch, int layer, size_t size);
  // The answer, or null. Its bytes stay as they are for as long as it is held.
  std::shared_ptr<const KeptAnswer> Find(uint64_t epoch, int layer) const;
  void Erase(uint64_t epoch, int layer);
  // Every layer of a sequence that ended.
  void EraseSequence(uint64_t epoch, int layers);

  size_t bytes() const { return bytes_; }                        // of the answers
  size_t memory_bytes() const { return bytes_ + spare_bytes_; }  // that it has

 private:
  using Key = std::pair<uint64_t, int>;
  struct Entry {
    Key key;
    std::shared_ptr<KeptAnswer> answer;
  };

  std::shared_ptr<KeptAnswer> TakeMemory(size_t size);

  size_t capacity_;
  size_t bytes_ = 0;
  std::list<Entry> newest_first_;
  absl::flat_hash_map<Key, std::list<Entry>::iterator> index_;

  // What was dropped, by size, for the next of that size: those of a pass are alike, and memory
  // that was never written takes longer to come by than to fill. With what is kept within the
  // capacity.
  std::multimap<size_t, std::shared_ptr<KeptAnswer>> spare_;
  size_t spare_bytes_ = 0;
};

}  // namespace gdn
