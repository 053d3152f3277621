#include "tests/emulator/residents.h"

#include <cstdlib>
#include <cstring>

#include "tests/emulator/machine.h"

namespace gdn::emulator {
namespace {

constexpr int kPoison = 0xff;  // a NaN in every element type

// Static shared memory is counted as so much: no kernel has enough of it to matter.
constexpr unsigned kStaticBytes = 1024;

void StartThread(Block& block, unsigned number) {
  const Grid& grid = *block.grid;
  auto thread = std::make_unique<Thread>();
  thread->number = static_cast<int>(number);
  thread->index = {number % grid.block.x, number / grid.block.x % grid.block.y,
                   number / grid.block.x / grid.block.y};
  thread->block = &block;
  thread->fiber.Start([&grid] { grid.kernel(); });
  block.threads.push_back(std::move(thread));
}

void StartThreads(Block& block) {
  const unsigned count = block.grid->block.volume();
  block.warps.resize((count + 31) / 32);
  block.warpgroups.resize((count + 127) / 128);
  for (unsigned i = 0; i < count; ++i) {
    StartThread(block, i);
    ++block.warps[i / 32].lanes;
  }
  for (size_t i = 0; i < block.warps.size(); ++i) {
    block.warps[i].block = &block;
    block.warps[i].first_thread = static_cast<int>(i) * 32;
    block.warps[i].priority = Draw();
  }
  block.alive = count;
  block.priority = Draw();
}

Index IndexOf(const Grid& grid, uint64_t number) {
  return {static_cast<unsigned>(number % grid.size.x),
          static_cast<unsigned>(number / grid.size.x % grid.size.y),
          static_cast<unsigned>(number / grid.size.x / grid.size.y)};
}

}  // namespace

bool Residents::Begin(Grid& grid) {
  const std::vector<int> processors = TakeRoom(grid);
  if (processors.empty()) return false;
  auto cluster = std::make_unique<Cluster>();
  cluster->threads = grid.cluster * grid.block.volume();
  for (unsigned rank = 0; rank < grid.cluster; ++rank) {
    auto block = std::make_unique<Block>();
    block->grid = &grid;
    block->cluster = cluster.get();
    block->rank = rank;
    block->processor = processors[rank];
    block->index = IndexOf(grid, grid.begun++);
    block->shared = TakeShared();
    StartThreads(*block);
    cluster->blocks.push_back(block.get());
    blocks_.push_back(std::move(block));
  }
  clusters_.push_back(std::move(cluster));
  return true;
}

void Residents::End(Cluster& cluster) {
  for (Block* block : cluster.blocks) {
    GiveRoom(*block->grid, block->processor);
    spare_shared_.push_back(block->shared);
    std::erase_if(blocks_, [block](const auto& b) { return b.get() == block; });
  }
  std::erase_if(clusters_, [&cluster](const auto& c) { return c.get() == &cluster; });
}

void Residents::Clear() {
  while (!clusters_.empty()) End(*clusters_.back());
}

// For all blocks of a cluster, or none.
std::vector<int> Residents::TakeRoom(const Grid& grid) {
  std::vector<int> taken;
  const auto first = static_cast<int>(Draw() % kProcessors);
  for (int i = 0; i < kProcessors; ++i) {
    const int at = (first + i) % kProcessors;
    Room& room = processors_[at];
    while (taken.size() < grid.cluster && room.shared >= grid.dynamic_bytes + kStaticBytes &&
           room.threads >= grid.block.volume()) {
      room.shared -= grid.dynamic_bytes + kStaticBytes;
      room.threads -= grid.block.volume();
      taken.push_back(at);
    }
  }
  if (taken.size() == grid.cluster) return taken;
  for (const int at : taken) GiveRoom(grid, at);
  return {};
}

void Residents::GiveRoom(const Grid& grid, int processor) {
  processors_[processor].shared += grid.dynamic_bytes + kStaticBytes;
  processors_[processor].threads += grid.block.volume();
}

unsigned char* Residents::TakeShared() {
  unsigned char* shared;
  if (spare_shared_.empty()) {
    shared = static_cast<unsigned char*>(std::aligned_alloc(1024, kSharedBytes));
  } else {
    shared = spare_shared_.back();
    spare_shared_.pop_back();
  }
  std::memset(shared, kPoison, kSharedBytes);
  return shared;
}

}  // namespace gdn::emulator
