#include "state/answer_store.h"

#include <iterator>

namespace gdn {

std::span<std::byte> AnswerStore::Put(uint64_t epoch, int layer, size_t size) {
  Erase(epoch, layer);
  if (size > capacity_) return {};
  while (bytes_ + size > capacity_) {
    const Key oldest = newest_first_.back().key;
    Erase(oldest.first, oldest.second);
  }
  newest_first_.push_front({{epoch, layer}, TakeMemory(size)});
  index_[{epoch, layer}] = newest_first_.begin();
  bytes_ += size;
  return newest_first_.front().answer->bytes();
}

std::shared_ptr<KeptAnswer> AnswerStore::TakeMemory(size_t size) {
  if (auto same = spare_.extract(size); !same.empty()) {
    spare_bytes_ -= size;
    return std::move(same.mapped());
  }
  while (bytes_ + spare_bytes_ + size > capacity_) {
    const auto largest = std::prev(spare_.end());
    spare_bytes_ -= largest->first;
    spare_.erase(largest);
  }
  return std::make_shared<KeptAnswer>(size);
}

std::shared_ptr<const KeptAnswer> AnswerStore::Find(uint64_t epoch, int layer) const {
  const auto it = index_.find(Key{epoch, layer});
  return it == index_.end() ? nullptr : it->second->answer;
}

void AnswerStore::Erase(uint64_t epoch, int layer) {
  const auto it = index_.find(Key{epoch, layer});
  if (it == index_.end()) return;
  std::shared_ptr<KeptAnswer> answer = std::move(it->second->answer);
  newest_first_.erase(it->second);
  index_.erase(it);
  const size_t size = answer->bytes().size();
  bytes_ -= size;
  if (answer.use_count() > 1) return;  // somebody reads it yet
  spare_.emplace(size, std::move(answer));
  spare_bytes_ += size;
}

void AnswerStore::EraseSequence(uint64_t epoch, int layers) {
  if (index_.empty()) return;
  for (int layer = 0; layer < layers; ++layer) Erase(epoch, layer);
}

}  // namespace gdn
