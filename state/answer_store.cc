#include "state/answer_store.h"

namespace gdn {

void AnswerStore::Put(uint64_t epoch, int layer, std::span<const std::byte> answer) {
  Erase(epoch, layer);
  if (answer.size() > capacity_) return;
  while (bytes_ + answer.size() > capacity_) {
    const Key oldest = newest_first_.back().key;
    Erase(oldest.first, oldest.second);
  }
  newest_first_.push_front(
      {{epoch, layer}, std::string(reinterpret_cast<const char*>(answer.data()), answer.size())});
  index_[{epoch, layer}] = newest_first_.begin();
  bytes_ += answer.size();
}

const std::string* AnswerStore::Find(uint64_t epoch, int layer) const {
  const auto it = index_.find(Key{epoch, layer});
  return it == index_.end() ? nullptr : &it->second->answer;
}

void AnswerStore::Erase(uint64_t epoch, int layer) {
  const auto it = index_.find(Key{epoch, layer});
  if (it == index_.end()) return;
  bytes_ -= it->second->answer.size();
  newest_first_.erase(it->second);
  index_.erase(it);
}

void AnswerStore::EraseSequence(uint64_t epoch, int layers) {
  if (index_.empty()) return;
  for (int layer = 0; layer < layers; ++layer) Erase(epoch, layer);
}

}  // namespace gdn
