// What runs on the machine in software: grids of blocks of threads, and what they share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/emulator/fiber.h"

namespace gdn::emulator {

inline constexpr unsigned kSharedBytes = 227 << 10;  // that a block can have

struct Block;
struct Cluster;
struct Grid;

struct Index {
  unsigned x = 0, y = 0, z = 0;
};

struct Size {
  unsigned x = 1, y = 1, z = 1;
  unsigned volume() const { return x * y * z; }
};

// Waits while (*word & mask) == value.
struct Wait {
  const uint64_t* word = nullptr;
  uint64_t mask = 0;
  uint64_t value = 0;
  const char* why = "";

  bool over() const { return word == nullptr || (*word & mask) != value; }
  bool same(const Wait& other) const {
    return word == other.word && mask == other.mask && value == other.value;
  }
};

struct Thread {
  Fiber fiber;
  Wait wait;
  Index index;
  int number = 0;  // in the block
  Block* block = nullptr;
  bool gave_way = false;

  std::vector<std::vector<std::function<void()>>> copies{1};  // cp.async by group, the last open
  std::vector<std::shared_ptr<uint64_t>> stores;              // bulk groups: copies under way
  uint64_t products = 0;                                      // asked for
  std::vector<uint64_t> product_groups;                       // ends, by group
  uint64_t cluster_phase = 0;
};

// Lanes meet: the last one to come computes for all.
struct Warp {
  Block* block = nullptr;
  int first_thread = 0;
  int lanes = 0;  // alive
  int arrived = 0;
  const void* in[32] = {};
  void* out[32] = {};
  void (*meeting)(const void* const* in, void* const* out) = nullptr;
  uint64_t meetings = 0;
  uint64_t priority = 0;
  Wait wait;  // of all lanes alike, to look at one for all
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

// One of a block's barriers.
struct Meeting {
  size_t threads = 0;  // that meet; 0 is all that are alive
  size_t arrived = 0;
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
  unsigned char* shared = nullptr;  // kSharedBytes: the dynamic ones, then the static ones
  unsigned static_bytes = 0;
  std::vector<std::pair<int, unsigned char*>> statics;  // by line of the source
  size_t alive = 0;                                     // threads
  int copies = 0;  // into or out of its shared memory, under way
  uint64_t priority = 0;
  bool let_next_begin = false;
};

struct Cluster {
  std::vector<Block*> blocks;
  unsigned threads = 0;
  unsigned arrived = 0;
  uint64_t phase = 0;
};

struct Grid {
  std::string name;
  Size size;
  Size block;
  unsigned cluster = 1;
  unsigned dynamic_bytes = 0;
  bool dependent = false;  // may begin while the one before it runs
  std::function<void()> kernel;

  uint64_t number = 0;
  uint64_t begun = 0;  // blocks
  uint64_t let_next_begin = 0;
  uint64_t ended = 0;
  uint64_t blocks() const { return uint64_t{size.x} * size.y * size.z; }
};

}  // namespace gdn::emulator
