// What the warps of gdn_decode_stream.cu pass on to one another.
#pragma once

#include "kernels/cuda/decode/gdn_decode.cuh"

namespace gdn::cuda::decode {

// The roles of the warps.
inline constexpr int kInputWarps = 4;
inline constexpr int kInputWarp = kWarps;                   // convolution, gates and the check
inline constexpr int kLoadWarp = kInputWarp + kInputWarps;  // takes works, both states in
inline constexpr int kStoreWarp = kLoadWarp + 1;            // both states out
inline constexpr int kNormWarp = kStoreWarp + 1;            // o out
inline constexpr int kInputThreads = kInputWarps * 32;
inline constexpr int kBlockThreads = (kNormWarp + 1) * 32;

inline constexpr int kMaxGroup = 8;  // R
inline constexpr int kParts = 2;     // of a state, each moved and updated on its own
inline constexpr int kMaxWorks = 7;
inline constexpr int kRing = 3 * kDim * kDim * 4;                         // bytes
inline constexpr int kWindows = 2 * kWidth * (2 + kMaxGroup) * kDim * 2;  // bytes

// The upper bytes of faults are zero before and after the launch. Meanwhile those of row 0 count
// the works that were taken; the others hold, for each row, how many blocks have found their share
// of its input finite, and how many have heard what came of it. (Those of row 0 are with the next.)
inline constexpr unsigned kTaken = 1 << 8;
inline constexpr unsigned kFaultBits = kTaken - 1;

struct Counter {
  unsigned* word;
  int shift;

  __device__ unsigned Count(unsigned value) const { return value >> shift & 255; }
  __device__ unsigned Load() const { return Count(LoadRelaxed(word)); }
  __device__ unsigned Add() const { return Count(atomicAdd(word, 1u << shift)) + 1; }
  __device__ void Clear() const { atomicAnd(word, ~(255u << shift)); }
};

__device__ inline Counter Finite(const FusedGdnDecodeParams& p, int64_t row) {
  return row == 0 ? Counter{p.faults + 1, 24} : Counter{p.faults + row, 8};
}
__device__ inline Counter Heard(const FusedGdnDecodeParams& p, int64_t row) {
  return row == 0 ? Counter{p.faults + 2, 24} : Counter{p.faults + row, 16};
}

// How often a block looks whether the others have checked theirs, before it checks the whole row.
inline constexpr int kLooks = 32;

// A row of a key head.
struct Work {
  int64_t row;  // negative: there is no more
  int64_t slot;
  int key_head;
  bool has_state;

  __device__ bool pad() const { return slot < 0; }
};

// What a work brings to its value heads.
struct alignas(16) Item {
  float qkv[(2 + kMaxGroup) * kDim];  // q | k | v of each head
  float squares[4];
  Gates gates[kMaxGroup];
};

// The rows of V that some of the warps update.
template <typename State>
struct Part {
  static constexpr int kSize = kDim * kDim / kParts;
  static constexpr unsigned kBytes = kSize * sizeof(State);

  State state[kSize];
};

template <typename State>
struct Shared {
  static constexpr int kStages = kRing / (kDim * kDim * sizeof(State)) * kParts;
  // Parts on their way out while the next is sent after them: where there are many small ones.
  static constexpr int kLeaving = sizeof(State) < 4 ? 1 : 0;

  alignas(128) Part<State> parts[kStages];
  alignas(16) unsigned char windows[kWindows];  // [works][W][(2 + R) * kDim] of Io
  Item items[2];
  alignas(16) float o[2][kDim];
  Work works[kMaxWorks];
  alignas(8) uint64_t taken[kMaxWorks];  // the work is there
  uint64_t loaded[kMaxWorks];            // and its window
  uint64_t over[kMaxWorks];              // its place is free
  uint64_t full[kStages];                // the state is there
  uint64_t done[kStages];                // and updated
  uint64_t free[kStages];                // and gone
  uint64_t begun;                        // the input warps' first loads are on their way
  uint64_t ready[2];
  uint64_t consumed[2];
  uint64_t o_full[2];
  uint64_t o_free[2];
};

// Where a role stands in a ring of buffers.
struct Cursor {
  int count;
  int index = 0;
  unsigned parity = 0;  // of the round

  __device__ void Next() {
    if (++index < count) return;
    index = 0;
    parity ^= 1;
  }
};

__device__ inline void Wait(const uint64_t& barrier, unsigned parity) {
  BarrierWait(SharedAddress(&barrier), parity);
}
__device__ inline void Arrive(const uint64_t& barrier) { BarrierArrive(SharedAddress(&barrier)); }

__device__ inline int GroupOf(const FusedGdnDecodeParams& p) {
  return p.heads.value_heads / p.heads.key_heads;
}

// The channels of a key head in mixed_qkv and in the conv state: three runs, which lie side by side
// in a window.
struct Channels {
  int first;  // of q
  int group;
  int key_heads;

  __device__ Channels(const FusedGdnDecodeParams& p, int key_head)
      : first(key_head * kDim), group(GroupOf(p)), key_heads(p.heads.key_heads) {}

  __device__ int count() const { return (2 + group) * kDim; }
  // Of run `part`: its first channel, its place in the window, its length.
  __device__ int Begin(int part) const {
    return part == 2 ? 2 * key_heads * kDim + first * group : part * key_heads * kDim + first;
  }
  __device__ static int Place(int part) { return part * kDim; }
  __device__ int Count(int part) const { return part == 2 ? group * kDim : kDim; }
};

// Where the states of the work's value heads lie, one part after the other.
template <typename State>
__device__ Part<State>* StatesOf(const FusedGdnDecodeParams& p, const Work& work) {
  State* pool = static_cast<State*>(p.ssm.data) + work.slot * p.ssm.slot_stride;
  return reinterpret_cast<Part<State>*>(pool) + int64_t{work.key_head} * GroupOf(p) * kParts;
}

template <typename Io>
__device__ Io* ConvState(const FusedGdnDecodeParams& p, const Work& work, int tap, int channel) {
  return static_cast<Io*>(p.conv.data) + work.slot * p.conv.slot_stride +
         int64_t{tap} * (2 * p.heads.key_heads + p.heads.value_heads) * kDim + channel;
}

// Work number `ticket`, row by row.
__device__ inline Work WorkOf(const FusedGdnDecodeParams& p, unsigned ticket) {
  Work work = {ticket / p.heads.key_heads, -1, static_cast<int>(ticket % p.heads.key_heads), false};
  if (work.row >= p.rows.count) {
    work.row = -1;
  } else {
    work.slot = p.rows.slot(work.row);
    work.has_state = p.rows.has_state(work.row);
  }
  return work;
}

// The works of the block, one after the other.
template <typename State>
class WorkList {
 public:
  __device__ WorkList(const FusedGdnDecodeParams& p, Shared<State>& shared)
      : shared_(shared), at_{WorksAtOnce(p)} {}

  // As many windows as there is room for.
  __device__ static int WorksAtOnce(const FusedGdnDecodeParams& p) {
    return min(kMaxWorks, kWindows / (kWidth * (2 + GroupOf(p)) * kDim * 2));
  }

  // The next one, or null after the last.
  __device__ const Work* Next() {
    Wait(shared_.taken[at_.index], at_.parity);
    const Work* work = &shared_.works[at_.index];
    return work->row < 0 ? nullptr : work;
  }
  __device__ void WaitLoaded() const { Wait(shared_.loaded[at_.index], at_.parity); }
  // x[t - 3 ..= t] of its channels.
  template <typename Io>
  __device__ Io* Window(int channels) const {
    return reinterpret_cast<Io*>(shared_.windows) + at_.index * kWidth * channels;
  }
  // The thread is through with it.
  __device__ void Over() {
    Arrive(shared_.over[at_.index]);
    at_.Next();
  }

  // For the thread that takes them.
  __device__ void Put(const Work& work) {
    Wait(shared_.over[at_.index], at_.parity ^ 1);
    shared_.works[at_.index] = work;
    Arrive(shared_.taken[at_.index]);
  }
  __device__ uint32_t loaded() const { return SharedAddress(&shared_.loaded[at_.index]); }
  __device__ void Advance() { at_.Next(); }

 private:
  Shared<State>& shared_;
  Cursor at_;
};

}  // namespace gdn::cuda::decode
