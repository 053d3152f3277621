// Kernels of a few lines on the machine in software, for its own tests.
#pragma once

#include <functional>
#include <string>
#include <utility>

#include "kernels/cuda/device/ptx.cuh"
#include "tests/emulator/machine.h"
#include "tests/emulator/prelude.h"

namespace gdn::emulator {

inline constexpr int kSeeds = 20;

// With 64 KiB of shared memory.
inline Grid GridOf(unsigned blocks, unsigned threads, std::function<void()> kernel,
                   unsigned cluster = 1) {
  Grid grid;
  grid.name = "kernel";
  grid.size.x = blocks;
  grid.block.x = threads;
  grid.cluster = cluster;
  grid.dynamic_bytes = 64 << 10;
  grid.kernel = std::move(kernel);
  return grid;
}

// "" or what went wrong.
inline std::string RunKernel(unsigned blocks, unsigned threads, std::function<void()> kernel,
                             unsigned cluster = 1) {
  Enqueue(GridOf(blocks, threads, std::move(kernel), cluster));
  return RunAll();
}

// Under how many seeds `run` does not return true.
template <typename F>
int Misses(F&& run) {
  int misses = 0;
  for (int seed = 1; seed <= kSeeds; ++seed) {
    SetSeed(static_cast<uint64_t>(seed));
    if (!run()) ++misses;
  }
  return misses;
}

}  // namespace gdn::emulator
