#include "tests/emulator/warp.h"

#include <algorithm>
#include <utility>

namespace gdn::emulator {

void Meet(const void* in, void* out, void (*compute)(const void* const* in, void* const* out)) {
  Warp& warp = self->block->warps[self->number / 32];
  if (warp.arrived == 0) {
    warp.meeting = compute;
    std::fill(std::begin(warp.in), std::end(warp.in), nullptr);
    std::fill(std::begin(warp.out), std::end(warp.out), nullptr);
  } else if (warp.meeting != compute) {
    Fail("the lanes of a warp meet for different ends");
  }
  warp.in[LaneOf()] = in;
  warp.out[LaneOf()] = out;
  if (++warp.arrived == warp.lanes) return EndMeeting(warp);
  WaitFor({&warp.meetings, ~uint64_t{0}, warp.meetings, "for the other lanes"});
}

void EndMeeting(Warp& warp) {
  warp.arrived = 0;
  if (warp.meeting != nullptr) warp.meeting(warp.in, warp.out);
  ++warp.meetings;
}

void MeetWarp() { Meet(nullptr, nullptr, nullptr); }

unsigned Ballot(bool x) {
  unsigned all = 0;
  Meet(&x, &all, [](const void* const* in, void* const* out) {
    unsigned bits = 0;
    for (int i = 0; i < 32; ++i) {
      if (in[i] != nullptr && *static_cast<const bool*>(in[i])) bits |= 1u << i;
    }
    for (int i = 0; i < 32; ++i) {
      if (out[i] != nullptr) *static_cast<unsigned*>(out[i]) = bits;
    }
  });
  return all;
}

bool MeetBlock(int id, int threads, bool x) {
  Block& block = *self->block;
  Meeting& meeting = block.barriers[id];
  const size_t all = threads < 0 ? block.alive : static_cast<size_t>(threads);
  meeting.any = meeting.any || x;
  if (++meeting.arrived < all) {
    WaitFor({&meeting.times, ~uint64_t{0}, meeting.times, "at a barrier of the block"});
    return meeting.last_any;
  }
  meeting.arrived = 0;
  meeting.last_any = std::exchange(meeting.any, false);
  ++meeting.times;
  return meeting.last_any;
}

void ArriveCluster() {
  Cluster& cluster = *self->block->cluster;
  self->cluster_phase = cluster.phase;
  if (++cluster.arrived == cluster.threads) {
    cluster.arrived = 0;
    ++cluster.phase;
  }
}

void WaitCluster() {
  WaitFor({&self->block->cluster->phase, ~uint64_t{0}, self->cluster_phase, "for the cluster"});
}

}  // namespace gdn::emulator
