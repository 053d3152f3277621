#include "tests/emulator/machine.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tests/emulator/warp.h"

namespace gdn::emulator {

Thread* self = nullptr;

namespace {

constexpr int kPoison = 0xff;  // a NaN in every element type

struct Processor {
  unsigned shared = kSharedBytes;
  unsigned threads = kProcessorThreads;
};

// What RunAll works on.
struct Machine {
  std::mt19937_64 random{1};
  std::optional<std::vector<Grid>> capture;
  std::deque<Grid> grids;  // from the oldest that has not ended
  uint64_t enqueued = 0;
  uint64_t ended = 0;  // grids
  std::vector<std::unique_ptr<Block>> blocks;
  std::vector<std::unique_ptr<Cluster>> clusters;
  std::vector<std::function<void()>> events;
  std::vector<unsigned char*> spare_shared;
  Processor processors[kProcessors];
  std::string failure;
};

Machine machine;

uint64_t Random(uint64_t below) { return machine.random() % below; }

// ---- blocks

void RunThread(Grid* grid, Thread* thread) {
  grid->kernel();
  thread->ended = true;
}

void StartThreads(Block& block) {
  Grid& grid = *block.grid;
  const unsigned count = grid.block.volume();
  block.warps.resize((count + 31) / 32);
  block.warpgroups.resize((count + 127) / 128);
  for (unsigned i = 0; i < count; ++i) {
    auto thread = std::make_unique<Thread>();
    thread->number = static_cast<int>(i);
    thread->index = {i % grid.block.x, i / grid.block.x % grid.block.y,
                     i / grid.block.x / grid.block.y};
    thread->block = &block;
    Warp& warp = block.warps[i / 32];
    if (warp.lanes++ == 0) {
      warp.block = &block;
      warp.first_thread = static_cast<int>(i);
      warp.priority = machine.random();
    }
    thread->fiber.Start([g = &grid, t = thread.get()] { RunThread(g, t); });
    block.threads.push_back(std::move(thread));
  }
  block.alive = count;
  block.priority = machine.random();
}

unsigned char* TakeShared() {
  unsigned char* shared;
  if (machine.spare_shared.empty()) {
    shared = static_cast<unsigned char*>(std::aligned_alloc(1024, kSharedBytes));
  } else {
    shared = machine.spare_shared.back();
    machine.spare_shared.pop_back();
  }
  std::memset(shared, kPoison, kSharedBytes);
  return shared;
}

// Static shared memory is counted as what is left: no kernel has enough of it to matter.
bool Fits(const Grid& grid, const Processor& processor) {
  return processor.shared >= grid.dynamic_bytes + 1024 && processor.threads >= grid.block.volume();
}

// Places for the blocks of a cluster, or none.
std::vector<int> TakeProcessors(const Grid& grid) {
  std::vector<int> taken;
  const auto first = static_cast<int>(Random(kProcessors));
  for (int i = 0; i < kProcessors && taken.size() < grid.cluster; ++i) {
    const int at = (first + i) % kProcessors;
    Processor& processor = machine.processors[at];
    while (taken.size() < grid.cluster && Fits(grid, processor)) {
      processor.shared -= grid.dynamic_bytes + 1024;
      processor.threads -= grid.block.volume();
      taken.push_back(at);
    }
  }
  if (taken.size() == grid.cluster) return taken;
  for (const int at : taken) {
    machine.processors[at].shared += grid.dynamic_bytes + 1024;
    machine.processors[at].threads += grid.block.volume();
  }
  return {};
}

bool BeginCluster(Grid& grid) {
  const std::vector<int> places = TakeProcessors(grid);
  if (places.empty()) return false;
  machine.clusters.push_back(std::make_unique<Cluster>());
  Cluster& cluster = *machine.clusters.back();
  cluster.threads = grid.cluster * grid.block.volume();
  for (unsigned rank = 0; rank < grid.cluster; ++rank) {
    auto block = std::make_unique<Block>();
    const uint64_t n = grid.begun++;
    block->grid = &grid;
    block->cluster = &cluster;
    block->rank = rank;
    block->processor = places[rank];
    block->index = {static_cast<unsigned>(n % grid.size.x),
                    static_cast<unsigned>(n / grid.size.x % grid.size.y),
                    static_cast<unsigned>(n / grid.size.x / grid.size.y)};
    block->shared = TakeShared();
    StartThreads(*block);
    cluster.blocks.push_back(block.get());
    machine.blocks.push_back(std::move(block));
  }
  return true;
}

void LetNextBegin(Block& block) {
  if (!block.let_next_begin) ++block.grid->let_next_begin;
  block.let_next_begin = true;
}

// A block's memory stays until its cluster has ended.
bool HasEnded(const Cluster& cluster) {
  return std::all_of(cluster.blocks.begin(), cluster.blocks.end(),
                     [](const Block* block) { return block->alive == 0; });
}

void EndCluster(Cluster& cluster) {
  for (Block* block : cluster.blocks) {
    LetNextBegin(*block);
    ++block->grid->ended;
    Processor& processor = machine.processors[block->processor];
    processor.shared += block->grid->dynamic_bytes + 1024;
    processor.threads += block->grid->block.volume();
    machine.spare_shared.push_back(block->shared);
    std::erase_if(machine.blocks, [block](const auto& b) { return b.get() == block; });
  }
  std::erase_if(machine.clusters, [&](const auto& c) { return c.get() == &cluster; });
}

bool MayBegin(size_t at) {
  if (at == 0) return true;
  const Grid& before = machine.grids[at - 1];
  return machine.grids[at].dependent && before.let_next_begin == before.blocks();
}

// Blocks begin in the order of their numbers, those of older grids first.
bool BeginBlocks() {
  bool begun = false;
  for (size_t at = 0; at < machine.grids.size() && MayBegin(at); ++at) {
    Grid& grid = machine.grids[at];
    while (grid.begun < grid.blocks() && BeginCluster(grid)) begun = true;
    if (grid.begun < grid.blocks()) break;
  }
  return begun;
}

void EndGrids() {
  while (!machine.grids.empty() && machine.grids.front().ended == machine.grids.front().blocks()) {
    machine.grids.pop_front();
    ++machine.ended;
  }
}

// ---- threads

bool CanRun(const Thread& thread) { return !thread.ended && thread.wait.over(); }

int Lanes(const Block& block, const Warp& warp) {
  return std::min<int>(32, static_cast<int>(block.threads.size()) - warp.first_thread);
}

bool CanRun(const Block& block, const Warp& warp) {
  if (warp.lanes == 0) return false;
  const int lanes = Lanes(block, warp);
  for (int i = 0; i < lanes; ++i) {
    if (CanRun(*block.threads[warp.first_thread + i])) return true;
  }
  return false;
}

void RunLane(Block& block, Warp& warp, Thread& thread) {
  self = &thread;
  thread.gave_way = false;
  thread.fiber.Resume();
  self = nullptr;
  if (!thread.ended) return;
  --block.alive;
  --warp.lanes;
  if (warp.arrived > 0 && warp.arrived == warp.lanes) EndMeeting(warp);
}

// Runs a warp for a while: until none of its lanes can go on, or one gives way. Now and then some
// of its lanes stay behind.
void RunWarp(Block& block, Warp& warp) {
  const int lanes = Lanes(block, warp);
  const uint64_t held = Chance(4) ? machine.random() : 0;
  for (uint64_t rounds = 1 + Random(200); rounds > 0; --rounds) {
    bool any = false;
    bool gave_way = false;
    const int first = static_cast<int>(Random(lanes));
    for (int i = 0; i < lanes; ++i) {
      const int lane = (first + i) % lanes;
      Thread& thread = *block.threads[warp.first_thread + lane];
      if ((held >> lane & 1) != 0 || !CanRun(thread)) continue;
      any = true;
      RunLane(block, warp, thread);
      if (!machine.failure.empty()) return;
      gave_way = gave_way || thread.gave_way;
    }
    if (gave_way) {
      warp.priority = Chance(2) ? 0 : machine.random();
      block.priority = Chance(2) ? 0 : machine.random();
    }
    if (!any || gave_way) return;
  }
}

void RunEvent() {
  const size_t at = Random(machine.events.size());
  const std::function<void()> event = std::move(machine.events[at]);
  machine.events[at] = std::move(machine.events.back());
  machine.events.pop_back();
  event();
}

// Whoever gave way is likely to go last; and each warp, and each block, is at times far ahead of
// all others and far behind.
void Redraw(uint64_t* priority, unsigned one_in) {
  if (*priority == 0 || Chance(one_in)) *priority = machine.random() | 1;
}

// The warp of the highest priority that can go on, in the block of the highest.
Warp* Choose() {
  Warp* best = nullptr;
  const auto after = [&best](const Block& block, const Warp& warp) {
    if (best == nullptr) return true;
    if (block.priority != best->block->priority) return block.priority > best->block->priority;
    return warp.priority > best->priority;
  };
  for (const auto& block : machine.blocks) {
    for (Warp& warp : block->warps) {
      if (after(*block, warp) && CanRun(*block, warp)) best = &warp;
    }
  }
  if (best == nullptr) return nullptr;
  Redraw(&best->priority, 16);
  Redraw(&best->block->priority, 256);
  return best;
}

// Where each thread waits that has not ended.
void Describe(std::string* text) {
  for (const auto& block : machine.blocks) {
    for (const Warp& warp : block->warps) {
      std::map<std::string, int> waits;
      for (int i = 0; i < Lanes(*block, warp); ++i) {
        const Thread& thread = *block->threads[warp.first_thread + i];
        if (!thread.ended) ++waits[thread.wait.why];
      }
      for (const auto& [why, lanes] : waits) {
        absl::StrAppend(text, "\n  ", block->grid->name, " block ", block->index.x, ",",
                        block->index.y, " warp ", warp.first_thread / 32, ": ", lanes, " lanes ",
                        why);
      }
    }
  }
}

// One thing that can happen; false where nothing can.
bool Advance() {
  if (!machine.events.empty() && Chance(8)) {
    RunEvent();
    return true;
  }
  Warp* warp = Choose();
  if (warp == nullptr) {
    if (machine.events.empty()) return false;
    RunEvent();
    return true;
  }
  Block& block = *warp->block;
  RunWarp(block, *warp);
  if (block.alive == 0 && HasEnded(*block.cluster)) EndCluster(*block.cluster);
  return true;
}

void Reset() {
  machine.grids.clear();
  machine.events.clear();
  for (const auto& block : machine.blocks) machine.spare_shared.push_back(block->shared);
  machine.blocks.clear();
  machine.clusters.clear();
  machine.ended = machine.enqueued;
  for (Processor& processor : machine.processors) processor = {};
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

void LetNextGridBegin() {
  // Counts once every thread of the block has come or ended: the last is what the next waits for.
  Block& block = *self->block;
  if (++block.let_next_begin_threads == block.threads.size()) LetNextBegin(block);
}

void Fail(const std::string& why) {
  if (machine.failure.empty()) machine.failure = why;
  for (;;) self->fiber.Suspend();
}

void Later(std::function<void()> event) { machine.events.push_back(std::move(event)); }

bool Chance(unsigned one_in) { return Random(one_in) == 0; }

void* SharedPlace(uint32_t address, size_t bytes) {
  const Cluster& cluster = *self->block->cluster;
  const uint32_t rank = address >> 24;
  const uint32_t offset = address & 0xffffff;
  if (rank >= cluster.blocks.size() || offset + bytes > kSharedBytes) {
    Fail("an address outside shared memory: " + std::to_string(address));
  }
  if (cluster.blocks[rank]->alive == 0) Fail("shared memory of a block that has ended");
  return cluster.blocks[rank]->shared + offset;
}

uint32_t SharedAddressOf(const void* place) {
  const Block& block = *self->block;
  const auto offset = static_cast<const unsigned char*>(place) - block.shared;
  if (offset < 0 || offset >= static_cast<ptrdiff_t>(kSharedBytes)) {
    Fail("the shared address of what is not shared");
  }
  return block.rank << 24 | static_cast<uint32_t>(offset);
}

void* DynamicSharedBytes() { return self->block->shared; }

void* StaticSharedBytes(int line, size_t bytes, size_t alignment) {
  Block& block = *self->block;
  for (const auto& [known, place] : block.statics) {
    if (known == line) return place;
  }
  size_t at = block.grid->dynamic_bytes + block.static_bytes;
  at = (at + alignment - 1) / alignment * alignment;
  block.static_bytes = static_cast<unsigned>(at + bytes - block.grid->dynamic_bytes);
  if (at + bytes > kSharedBytes) Fail("too much shared memory");
  block.statics.emplace_back(line, block.shared + at);
  return block.shared + at;
}

void BeginCapture() { machine.capture.emplace(); }

bool IsCapturing() { return machine.capture.has_value(); }

std::vector<Grid> EndCapture() { return *std::exchange(machine.capture, std::nullopt); }

void Enqueue(Grid grid) {
  if (machine.capture.has_value()) {
    machine.capture->push_back(std::move(grid));
    return;
  }
  grid.number = machine.enqueued++;
  machine.grids.push_back(std::move(grid));
}

std::string RunAll() {
  machine.failure.clear();
  while (!machine.grids.empty() && machine.failure.empty()) {
    BeginBlocks();
    if (!Advance()) {
      machine.failure = "nothing can go on";
      Describe(&machine.failure);
    }
    EndGrids();
  }
  while (machine.failure.empty() && !machine.events.empty()) RunEvent();
  Reset();
  return machine.failure;
}

void SetSeed(uint64_t seed) { machine.random.seed(seed); }

}  // namespace gdn::emulator
