// Input that is made from a seed, the same on every backend.
#pragma once

#include <cstdint>

namespace gdn {

// Element i of the input of a part with `seed`: uniform over the multiples of 1/128 in [-1, 1),
// exact in every type. From the i-th number of SplitMix64.
constexpr float SyntheticValue(uint64_t seed, uint64_t i) {
  uint64_t x = seed + (i + 1) * 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  x ^= x >> 31;
  return static_cast<float>(static_cast<int>(x >> 56) - 128) / 128.0f;
}

}  // namespace gdn
