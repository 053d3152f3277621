// What a chunk's preparation is divided into.
#pragma once

#include "kernels/cuda/device/chunk_tile.cuh"
#include "kernels/cuda/prefill/chunk_sm90.h"

namespace gdn::cuda::prepare {

// Where an item stands among the others.
struct Place {
  unsigned chunk;
  unsigned key_head;
  unsigned piece;  // of its group of value heads
};

// The items of work of the chunks begin..end, in the order in which the chain wants them: by
// chunks, in these by key heads and pieces of their group of value heads.
struct Items {
  unsigned begin;
  unsigned end;
  unsigned key_heads;
  unsigned group;       // value heads of a key head
  unsigned item_heads;  // at most
  unsigned pieces;      // of a group

  __device__ Items(const ChunkSm90Params& p, int64_t begin, int64_t end)
      : begin(static_cast<unsigned>(begin)),
        end(static_cast<unsigned>(end)),
        key_heads(p.rule.heads.key_heads),
        group(p.rule.heads.value_heads / key_heads),
        item_heads(p.plan.item_heads),
        pieces((group + item_heads - 1) / item_heads) {}

  __device__ unsigned count() const { return (end - begin) * key_heads * pieces; }
  __device__ Place place(unsigned n) const {
    const unsigned unit = n / pieces;
    return {begin + unit / key_heads, unit % key_heads, n % pieces};
  }
};

struct Item {
  int64_t chunk;
  int key_head;
  int first_head;  // value heads first_head..first_head+heads
  int heads;

  __device__ Item(const Items& items, const Place& at)
      : chunk(at.chunk),
        key_head(static_cast<int>(at.key_head)),
        first_head(static_cast<int>(at.key_head * items.group + at.piece * items.item_heads)),
        heads(static_cast<int>(min(items.item_heads, items.group - at.piece * items.item_heads))) {}

  __device__ int64_t record(const ChunkSm90Params& p, int head) const {
    return chunk * p.rule.heads.value_heads + first_head + head;
  }
};

// The items of a group one after another, those of PAD rows left out. 32 are looked up at a time,
// one by a lane.
class Upcoming {
 public:
  __device__ Upcoming(const ChunkSm90Params& p, const Items& items, unsigned first, unsigned step)
      : p_(p), items_(items), step_(step), n_(first - step) {}

  // Whether there is one more.
  __device__ bool Next() {
    for (;;) {
      n_ += step_;
      if (n_ >= items_.count()) return false;
      at_ = (at_ + 1) % 32;
      if (at_ == 0) LookUp();
      if (length() > 0) return true;
    }
  }

  __device__ Item item() const {
    const unsigned head = Current(heads_);
    return Item(items_, {Current(chunks_), head >> 16, head & 0xffff});
  }
  __device__ int64_t begin() const { return Current(begins_); }  // the first token
  __device__ int length() const { return Current(lengths_); }

 private:
  template <typename V>
  __device__ V Current(V by_lane) const {
    return __shfl_sync(~0u, by_lane, at_);
  }

  __device__ void LookUp() {
    const unsigned n = n_ + threadIdx.x % 32 * step_;
    lengths_ = 0;
    if (n >= items_.count()) return;
    const Place at = items_.place(n);
    chunks_ = at.chunk;
    heads_ = at.key_head << 16 | at.piece;
    const ChunkTile tile = TileOf(p_.rule.rows, p_.chunks, at.chunk);
    begins_ = tile.begin;
    if (p_.rule.rows.slot(tile.row) >= 0) lengths_ = tile.length;
  }

  const ChunkSm90Params& p_;
  const Items& items_;
  unsigned step_;
  unsigned n_;
  int at_ = -1;
  // By lane.
  unsigned chunks_ = 0;
  unsigned heads_ = 0;  // key head, in the lower half the piece of its group
  int64_t begins_ = 0;
  int lengths_ = 0;  // 0: PAD
};

}  // namespace gdn::cuda::prepare
