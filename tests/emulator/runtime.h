// The CUDA runtime over the machine in software: what beside CUDA's own headers it has for kernels
// and for tests.
#pragma once

#include <cuda_runtime_api.h>

#include <string>
#include <typeinfo>

#include "tests/emulator/grid.h"

namespace gdn::emulator {

// Of a kernel that is known by its type alone.
std::string NameOf(const std::type_info& type);

// Enqueues a grid; what does not fit any device is the last error as well.
cudaError_t Launched(Grid grid);

// What a test has refused, and what was taken and not given back.
struct Resources {
  int until_refused = -1;  // calls that still succeed; refused is the one after, -1: none
  int held = 0;

  // For who takes one: whether it may.
  bool Take();
};
extern Resources memory;     // of the device and pinned
extern Resources cublas_lt;  // its handles, descriptions and layouts

}  // namespace gdn::emulator
