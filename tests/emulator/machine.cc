#include "tests/emulator/machine.h"

#include <algorithm>
#include <deque>
#include <map>
#include <optional>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tests/emulator/residents.h"
#include "tests/emulator/warp.h"

namespace gdn::emulator {

Thread* self = nullptr;

namespace {

// What RunAll works on.
struct Machine {
  std::mt19937_64 random{1};
  std::optional<std::vector<Grid>> capture;
  std::deque<Grid> grids;  // from the oldest that has not ended
  uint64_t enqueued = 0;
  uint64_t ended = 0;  // grids
  Residents residents;
  std::vector<std::function<void()>> events;
  std::string failure;
};

Machine machine;

uint64_t Random(uint64_t below) { return Draw() % below; }

// ---- grids

void LetNextBegin(Block& block) {
  if (!block.let_next_begin) ++block.grid->let_next_begin;
  block.let_next_begin = true;
}

bool MayBegin(size_t at) {
  if (at == 0) return true;
  const Grid& before = machine.grids[at - 1];
  return machine.grids[at].dependent && before.let_next_begin == before.blocks();
}

// Blocks begin in the order of their numbers, those of older grids first.
void BeginBlocks() {
  for (size_t at = 0; at < machine.grids.size() && MayBegin(at); ++at) {
    Grid& grid = machine.grids[at];
    while (grid.begun < grid.blocks()) {
      if (!machine.residents.Begin(grid)) return;
    }
  }
}

// A block's memory stays until its cluster has ended.
void EndIfOver(Cluster& cluster) {
  const auto over = [](const Block* block) { return block->alive == 0; };
  if (!std::all_of(cluster.blocks.begin(), cluster.blocks.end(), over)) return;
  for (Block* block : cluster.blocks) {
    if (block->copies > 0) FailLater(block->grid->name + " has ended with copies under way");
    LetNextBegin(*block);
    ++block->grid->ended;
  }
  machine.residents.End(cluster);
}

void EndGrids() {
  while (!machine.grids.empty() && machine.grids.front().ended == machine.grids.front().blocks()) {
    machine.grids.pop_front();
    ++machine.ended;
  }
}

// ---- threads

int Lanes(const Warp& warp) {
  return std::min<int>(32, static_cast<int>(warp.block->threads.size()) - warp.first_thread);
}

Thread& Lane(const Warp& warp, int lane) { return *warp.block->threads[warp.first_thread + lane]; }

bool CanRun(const Thread& thread) { return !thread.fiber.ended() && thread.wait.over(); }

bool CanRun(const Warp& warp) {
  if (warp.lanes == 0 || !warp.wait.over()) return false;
  for (int lane = 0; lane < Lanes(warp); ++lane) {
    if (CanRun(Lane(warp, lane))) return true;
  }
  return false;
}

void RunThread(Warp& warp, Thread& thread) {
  self = &thread;
  thread.gave_way = false;
  thread.fiber.Resume();
  self = nullptr;
  if (thread.fiber.ended()) LeaveMeetings(warp);
}

// Whoever gave way is likely to go last; and each warp, and each block, is at times far ahead of
// all others and far behind.
void FallBack(uint64_t* priority) { *priority = Chance(2) ? 0 : Draw(); }
void Redraw(uint64_t* priority, unsigned one_in) {
  if (*priority == 0 || Chance(one_in)) *priority = Draw() | 1;
}

// The wait of all lanes, where it is one.
Wait CommonWait(const Warp& warp) {
  Wait common;
  for (int lane = 0; lane < Lanes(warp); ++lane) {
    const Thread& thread = Lane(warp, lane);
    if (thread.fiber.ended()) continue;
    if (common.word == nullptr) common = thread.wait;
    if (thread.wait.word == nullptr || !thread.wait.same(common)) return {};
  }
  return common;
}

// Runs a warp for a while: until none of its lanes can go on, or one gives way. Now and then some
// of its lanes stay behind.
void RunWarp(Warp& warp) {
  const int lanes = Lanes(warp);
  const uint64_t held = Chance(4) ? Draw() : 0;
  bool any = true;
  bool gave_way = false;
  for (uint64_t rounds = 1 + Random(200); rounds > 0 && any && !gave_way; --rounds) {
    any = false;
    const auto first = static_cast<int>(Random(static_cast<uint64_t>(lanes)));
    for (int i = 0; i < lanes; ++i) {
      const int lane = (first + i) % lanes;
      Thread& thread = Lane(warp, lane);
      if ((held >> lane & 1) != 0 || !CanRun(thread)) continue;
      RunThread(warp, thread);
      if (!machine.failure.empty()) return;
      any = true;
      gave_way = gave_way || thread.gave_way;
    }
  }
  warp.wait = CommonWait(warp);
  if (!gave_way) return;
  FallBack(&warp.priority);
  FallBack(&warp.block->priority);
}

// The warp of the highest priority that can go on, in the block of the highest.
Warp* Choose() {
  Warp* best = nullptr;
  const auto before_best = [&best](const Block& block, const Warp& warp) {
    if (best == nullptr) return true;
    if (block.priority != best->block->priority) return block.priority > best->block->priority;
    return warp.priority > best->priority;
  };
  for (const auto& block : machine.residents.blocks()) {
    for (Warp& warp : block->warps) {
      if (before_best(*block, warp) && CanRun(warp)) best = &warp;
    }
  }
  if (best == nullptr) return nullptr;
  Redraw(&best->priority, 16);
  Redraw(&best->block->priority, 256);
  return best;
}

// ---- runs

void RunEvent() {
  const size_t at = Random(machine.events.size());
  const std::function<void()> event = std::move(machine.events[at]);
  machine.events[at] = std::move(machine.events.back());
  machine.events.pop_back();
  event();
}

// One thing that can happen; false where nothing can.
bool Advance() {
  Warp* warp = machine.events.empty() || !Chance(8) ? Choose() : nullptr;
  if (warp != nullptr) {
    Block& block = *warp->block;
    RunWarp(*warp);
    if (block.alive == 0) EndIfOver(*block.cluster);
    return true;
  }
  if (machine.events.empty()) return false;
  RunEvent();
  return true;
}

// Where each thread waits that has not ended.
std::string Waits() {
  std::string text;
  for (const auto& block : machine.residents.blocks()) {
    for (const Warp& warp : block->warps) {
      std::map<std::string, int> waits;
      for (int lane = 0; lane < Lanes(warp); ++lane) {
        const Thread& thread = Lane(warp, lane);
        if (!thread.fiber.ended()) ++waits[thread.wait.over() ? "that can go on" : thread.wait.why];
      }
      for (const auto& [why, lanes] : waits) {
        absl::StrAppend(&text, "\n  ", block->grid->name, " block ", block->index.x, ",",
                        block->index.y, ",", block->index.z, " warp ", warp.first_thread / 32, ": ",
                        lanes, " lanes ", why);
      }
    }
  }
  return text;
}

void Reset() {
  machine.grids.clear();
  machine.events.clear();
  machine.residents.Clear();
  machine.ended = machine.enqueued;
}

// What every device takes.
bool IsValid(const Grid& grid) {
  const Size& b = grid.block;
  return grid.blocks() > 0 && grid.size.y < 1 << 16 && grid.size.z < 1 << 16 && b.volume() > 0 &&
         b.volume() <= 1024 && b.z <= 64 && grid.dynamic_bytes <= kSharedBytes &&
         grid.size.x % grid.cluster == 0;
}

}  // namespace

void WaitFor(const Wait& wait) {
  Thread* thread = self;
  thread->wait = wait;
  while (!thread->wait.over()) thread->fiber.Suspend();
  thread->wait = {};
}

void GiveWay() {
  self->gave_way = true;
  self->fiber.Suspend();
}

void WaitForGridsBefore() {
  const uint64_t number = self->block->grid->number;
  while (machine.ended < number) {
    WaitFor({&machine.ended, ~uint64_t{0}, machine.ended, "for the grids before"});
  }
}

// A block counts with one of its threads, or with all once they have ended.
void LetNextGridBegin() {
  if (Chance(32)) LetNextBegin(*self->block);
}

void Fail(std::string why) {
  FailLater(std::move(why));
  for (;;) self->fiber.Suspend();
}

void FailLater(std::string why) {
  if (machine.failure.empty()) machine.failure = std::move(why);
}

void Later(std::function<void()> event) { machine.events.push_back(std::move(event)); }

bool Chance(unsigned one_in) { return Random(one_in) == 0; }

uint64_t Draw() { return machine.random(); }

bool Enqueue(Grid grid) {
  if (!IsValid(grid)) return false;
  if (machine.capture.has_value()) {
    machine.capture->push_back(std::move(grid));
    return true;
  }
  grid.number = machine.enqueued++;
  machine.grids.push_back(std::move(grid));
  return true;
}

void BeginCapture() { machine.capture.emplace(); }

bool IsCapturing() { return machine.capture.has_value(); }

std::vector<Grid> EndCapture() { return *std::exchange(machine.capture, std::nullopt); }

std::string RunAll() {
  machine.failure.clear();
  while (!machine.grids.empty() && machine.failure.empty()) {
    BeginBlocks();
    if (!Advance()) machine.failure = "nothing can go on" + Waits();
    EndGrids();
  }
  while (machine.failure.empty() && !machine.events.empty()) RunEvent();
  Reset();
  return machine.failure;
}

void SetSeed(uint64_t seed) { machine.random.seed(seed); }

}  // namespace gdn::emulator
