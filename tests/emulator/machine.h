// A GPU in software, one thread of the host: kernels' threads are fibers, and which of them goes on
// is drawn at random wherever they meet or wait. What the hardware does by itself (bulk copies,
// products of a warpgroup) is done at random too, at the latest where a thread waits for it. So one
// run is one possible run of the hardware, and the same for the same seed.
//
// It shows wrong results, deadlocks and addresses outside shared memory. It does not show what
// depends on caches and on fences: a write is seen by all at once.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "tests/emulator/fiber.h"

namespace gdn::emulator {

struct Index {
  unsigned x = 0, y = 0, z = 0;
};

struct Size {
  unsigned x = 1, y = 1, z = 1;
  unsigned volume() const { return x * y * z; }
};

inline constexpr int kProcessors = 16;
inline constexpr unsigned kSharedBytes = 227 << 10;  // of a processor, and so of a block
inline constexpr unsigned kProcessorThreads = 2048;

struct Block;
struct Cluster;
struct Grid;

// Waits while (*word & mask) == value.
struct Wait {
  const uint64_t* word = nullptr;
  uint64_t mask = 0;
  uint64_t value = 0;
  const char* why = "";

  bool over() const { return word == nullptr || (*word & mask) != value; }
};

// A product of a warpgroup, from when its first thread asks for it.
struct Product {
  int posted = 0;  // threads that have asked
  float* d[128] = {};
  uint32_t a[128][4] = {};
  uint64_t a_shared = 0;
  uint64_t b = 0;
  void (*run)(Block&, const Product&) = nullptr;
};

struct Warpgroup {
  std::deque<Product> products;  // from number `done` on
  uint64_t done = 0;
  uint64_t whole = 0;  // products before this number were asked for by all threads
};

// Lanes meet: the last one to come computes for all.
struct Warp {
  Block* block = nullptr;
  int lanes = 0;  // alive
  int arrived = 0;
  const void* in[32] = {};
  void* out[32] = {};
  void (*meeting)(const void* const* in, void* const* out) = nullptr;
  uint64_t meetings = 0;
  uint64_t priority = 0;
  int first_thread = 0;
};

struct Thread {
  Fiber fiber;
  Wait wait;
  Index index;
  int number = 0;  // in the block
  Block* block = nullptr;
  bool ended = false;
  bool gave_way = false;

  std::vector<std::vector<std::function<void()>>> copies{1};  // cp.async by group, the last open
  std::vector<std::shared_ptr<uint64_t>> stores;              // bulk groups: copies under way
  uint64_t products = 0;                                      // asked for
  std::vector<uint64_t> product_groups;                       // ends, by group
  uint64_t cluster_phase = 0;
};

struct Meeting {
  unsigned arrived = 0;
  bool any = false;
  bool last_any = false;
  uint64_t times = 0;
};

struct Block {
  Grid* grid = nullptr;
  Cluster* cluster = nullptr;
  unsigned rank = 0;  // in the cluster
  int processor = 0;
  Index index;
  std::vector<std::unique_ptr<Thread>> threads;
  std::vector<Warp> warps;
  std::vector<Warpgroup> warpgroups;
  Meeting barriers[16];
  unsigned char* shared = nullptr;  // kSharedBytes
  unsigned static_bytes = 0;        // taken after the dynamic ones
  std::vector<std::pair<int, unsigned char*>> statics;
  size_t alive = 0;
  uint64_t priority = 0;
  bool let_next_begin = false;
  size_t let_next_begin_threads = 0;
};

struct Cluster {
  std::vector<Block*> blocks;
  unsigned arrived = 0;
  uint64_t phase = 0;
  unsigned threads = 0;
};

struct Grid {
  std::string name;
  Size size;
  Size block;
  unsigned cluster = 1;
  unsigned dynamic_bytes = 0;
  bool dependent = false;
  std::function<void()> kernel;

  uint64_t number = 0;
  uint64_t begun = 0;  // blocks
  uint64_t let_next_begin = 0;
  uint64_t ended = 0;
  uint64_t blocks() const { return uint64_t{size.x} * size.y * size.z; }
};

// The thread that runs.
extern Thread* self;

// ---- for what a thread does

// Does not return before the wait is over.
void WaitFor(const Wait& wait);
// Others go first.
void GiveWay();
// Ends the run; the stream's next synchronisation returns an error.
[[noreturn]] void Fail(const std::string& why);
// To be done by the hardware, some time.
void Later(std::function<void()> event);
bool Chance(unsigned one_in);

// Where a shared address of the running thread's cluster lies; the bytes are all within its block.
void* SharedPlace(uint32_t address, size_t bytes);
uint32_t SharedAddressOf(const void* place);

void* DynamicSharedBytes();
void* StaticSharedBytes(int line, size_t bytes, size_t alignment);

// ---- for the runtime

void Enqueue(Grid grid);
// What is enqueued between these is not run, but handed out.
void BeginCapture();
bool IsCapturing();
std::vector<Grid> EndCapture();
// Runs all that was enqueued; "" or what went wrong.
std::string RunAll();
void SetSeed(uint64_t seed);

}  // namespace gdn::emulator
