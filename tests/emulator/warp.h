// Where lanes, blocks and clusters meet.
#pragma once

#include "tests/emulator/machine.h"

namespace gdn::emulator {

inline int LaneOf() { return self->number % 32; }

// All lanes of the warp bring `in`; the last to come fills `out` of each.
void Meet(const void* in, void* out, void (*compute)(const void* const* in, void* const* out));
void MeetWarp();
unsigned Ballot(bool x);

// `threads` threads of the block, or all that are alive (0), at barrier `id`; whether one of them
// had `x`.
bool MeetBlock(int id, int threads, bool x);

// For a lane that has ended: those that wait for it go on.
void LeaveMeetings(Warp& warp);

void ArriveCluster();
void WaitCluster();

template <typename T>
T Shuffle(T x, int lane) {
  struct In {
    T x;
    int lane;
  };
  const In in = {x, lane};
  T out;
  Meet(&in, &out, [](const void* const* ins, void* const* outs) {
    for (int i = 0; i < 32; ++i) {
      if (outs[i] == nullptr) continue;
      const int from = static_cast<const In*>(ins[i])->lane;
      if (ins[from] != nullptr) *static_cast<T*>(outs[i]) = static_cast<const In*>(ins[from])->x;
    }
  });
  return out;
}

}  // namespace gdn::emulator
