#include "tests/emulator/warp.h"

#include <algorithm>
#include <utility>

namespace gdn::emulator {
namespace {

void EndMeeting(Warp& warp) {
  warp.arrived = 0;
  if (warp.meeting != nullptr) warp.meeting(warp.in, warp.out);
  ++warp.meetings;
}

bool IsWhole(const Block& block, const Meeting& meeting) {
  return meeting.arrived == (meeting.threads == 0 ? block.alive : meeting.threads);
}

void EndMeeting(Meeting& meeting) {
  meeting.arrived = 0;
  meeting.last_any = std::exchange(meeting.any, false);
  ++meeting.times;
}

}  // namespace

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
  const auto all = static_cast<size_t>(threads);
  if (meeting.arrived > 0 && meeting.threads != all) Fail("a barrier of different sizes");
  meeting.threads = all;
  meeting.any = meeting.any || x;
  ++meeting.arrived;
  if (IsWhole(block, meeting)) {
    EndMeeting(meeting);
  } else {
    WaitFor({&meeting.times, ~uint64_t{0}, meeting.times, "at a barrier of the block"});
  }
  return meeting.last_any;
}

void LeaveMeetings(Warp& warp) {
  Block& block = *warp.block;
  --block.alive;
  --warp.lanes;
  if (warp.arrived > 0 && warp.arrived == warp.lanes) EndMeeting(warp);
  for (Meeting& meeting : block.barriers) {
    if (meeting.arrived > 0 && IsWhole(block, meeting)) EndMeeting(meeting);
  }
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
