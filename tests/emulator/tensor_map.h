// What the emulated driver writes into a CUtensorMap.
#pragma once

#include <cstdint>

namespace gdn::emulator {

// A tensor of two dimensions and elements of 16 bits, by boxes of 64 x 64.
struct Tensor {
  uint16_t* data;
  uint64_t columns;
  uint64_t rows;
  uint64_t stride;  // from a row to the next, in elements
};

}  // namespace gdn::emulator
