// The bookkeeping of rows of tokens, on the device: row i has slot i.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/chunk_index.h"
#include "kernels/ops/operands.h"
#include "tests/bench/cuda/device.h"

namespace gdn::bench {

class DeviceRows {
 public:
  explicit DeviceRows(const std::vector<int64_t>& lengths) {
    std::vector<int64_t> offsets(1, 0);
    for (int64_t length : lengths) offsets.push_back(offsets.back() + length);
    const ChunkIndex index(offsets);
    const Chunks chunks = index.chunks();
    count_ = static_cast<int64_t>(lengths.size());
    tokens_ = offsets.back();
    chunk_count_ = chunks.count;
    offsets_ = ToDevice(offsets);
    chunk_offsets_ =
        ToDevice(std::vector<int64_t>(chunks.chunk_offsets, chunks.chunk_offsets + offsets.size()));
    chunk_indices_ = ToDevice(
        std::vector<int64_t>(chunks.chunk_indices, chunks.chunk_indices + 2 * chunks.count));
    longest_first_ =
        ToDevice(std::vector<int64_t>(chunks.longest_first, chunks.longest_first + 2 * count_));
    longest_ = chunks.longest;
  }

  int64_t tokens() const { return tokens_; }
  Rows rows() const { return {count_, offsets_.as<int64_t>(), nullptr, nullptr}; }
  Chunks chunks() const {
    return {chunk_count_, chunk_offsets_.as<int64_t>(), chunk_indices_.as<int64_t>(),
            longest_first_.as<int64_t>(), longest_};
  }

 private:
  int64_t count_ = 0;
  int64_t tokens_ = 0;
  int64_t chunk_count_ = 0;
  int64_t longest_ = 0;
  Buffer offsets_, chunk_offsets_, chunk_indices_, longest_first_;
};

}  // namespace gdn::bench
