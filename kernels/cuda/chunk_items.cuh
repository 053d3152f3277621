// What a chunk's preparation is divided into.
#pragma once

#include "kernels/cuda/chunk_sm90.h"
#include "kernels/cuda/chunk_tile.cuh"

namespace gdn::cuda::prepare {

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
};

struct Item {
  int64_t chunk;
  int key_head;
  int first_head;  // value heads first_head..first_head+heads
  int heads;
  bool first_piece;

  __device__ Item(const Items& items, unsigned n) {
    const unsigned piece = n % items.pieces;
    const unsigned unit = n / items.pieces;
    chunk = items.begin + unit / items.key_heads;
    key_head = static_cast<int>(unit % items.key_heads);
    first_head = static_cast<int>(key_head * items.group + piece * items.item_heads);
    heads = static_cast<int>(min(items.item_heads, items.group - piece * items.item_heads));
    first_piece = piece == 0;
  }

  __device__ int64_t record(const ChunkSm90Params& p, int head) const {
    return chunk * p.rule.heads.value_heads + first_head + head;
  }
};

// The items of a group one after another, those of PAD rows left out. The tokens of 32 are looked
// up at a time, one by a lane.
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
      length_ = __shfl_sync(~0u, lengths_, at_);
      if (length_ == 0) continue;
      begin_ = __shfl_sync(~0u, begins_, at_);
      return true;
    }
  }

  __device__ Item item() const { return Item(items_, n_); }
  __device__ int64_t begin() const { return begin_; }  // the first token
  __device__ int length() const { return length_; }

 private:
  __device__ void LookUp() {
    const unsigned n = n_ + threadIdx.x % 32 * step_;
    lengths_ = 0;
    if (n >= items_.count()) return;
    const ChunkTile tile = TileOf(p_.rule.rows, p_.chunks, Item(items_, n).chunk);
    begins_ = tile.begin;
    if (p_.rule.rows.slot(tile.row) >= 0) lengths_ = tile.length;
  }

  const ChunkSm90Params& p_;
  const Items& items_;
  unsigned step_;
  unsigned n_;
  int at_ = -1;
  int64_t begins_ = 0;  // by lane
  int lengths_ = 0;     // by lane; 0: PAD
  int64_t begin_ = 0;
  int length_ = 0;
};

}  // namespace gdn::cuda::prepare
