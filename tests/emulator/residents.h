// The blocks that run, and the processors that have the room for them.
#pragma once

#include <memory>
#include <vector>

#include "tests/emulator/grid.h"

namespace gdn::emulator {

inline constexpr int kProcessors = 16;

class Residents {
 public:
  // The next cluster of a grid; false where there is no room.
  bool Begin(Grid& grid);
  void End(Cluster& cluster);
  void Clear();

  const std::vector<std::unique_ptr<Block>>& blocks() const { return blocks_; }

 private:
  struct Room {
    unsigned shared = kSharedBytes;
    unsigned threads = 2048;
  };

  std::vector<int> TakeRoom(const Grid& grid);
  void GiveRoom(const Grid& grid, int processor);
  unsigned char* TakeShared();

  Room processors_[kProcessors];
  std::vector<std::unique_ptr<Block>> blocks_;
  std::vector<std::unique_ptr<Cluster>> clusters_;
  std::vector<unsigned char*> spare_shared_;
};

}  // namespace gdn::emulator
