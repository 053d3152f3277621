#include "tests/emulator/matrix.h"

#include "tests/emulator/machine.h"
#include "tests/emulator/shared_memory.h"

namespace gdn::emulator {
namespace {

struct Lane {
  uint16_t* row;
  uint32_t* r;  // four
};

// Calls f(element in memory, the lane's register, which half of it).
template <typename F>
void ForEachElement(const void* const* in, bool transposed, F&& f) {
  const auto of = [in](int lane) { return static_cast<const Lane*>(in[lane]); };
  for (int lane = 0; lane < 32; ++lane) {
    for (int m = 0; m < 4; ++m) {
      for (int e = 0; e < 2; ++e) {
        const int i = lane / 4;
        const int j = lane % 4 * 2 + e;
        uint16_t& element = transposed ? of(8 * m + j)->row[i] : of(8 * m + i)->row[j];
        f(element, of(lane)->r[m], e);
      }
    }
  }
}

template <bool kTransposed>
void Load(const void* const* in, void* const*) {
  ForEachElement(in, kTransposed, [](uint16_t element, uint32_t& r, int e) {
    r = e == 0 ? element : r | uint32_t{element} << 16;
  });
}

template <bool kTransposed>
void Store(const void* const* in, void* const*) {
  ForEachElement(in, kTransposed, [](uint16_t& element, uint32_t r, int e) {
    element = static_cast<uint16_t>(r >> (16 * e));
  });
}

Lane LaneAt(uint32_t address, uint32_t* r) {
  if (address % 16 != 0) Fail("a row of a matrix that is not aligned");
  return {reinterpret_cast<uint16_t*>(SharedPlace(address, 16).data), r};
}

}  // namespace

uint4 LoadMatrices(uint32_t address, bool transposed) {
  uint32_t r[4];
  const Lane lane = LaneAt(address, r);
  Meet(&lane, nullptr, transposed ? Load<true> : Load<false>);
  return {r[0], r[1], r[2], r[3]};
}

void StoreMatrices(uint32_t address, uint4 x, bool transposed) {
  uint32_t r[4] = {x.x, x.y, x.z, x.w};
  const Lane lane = LaneAt(address, r);
  Meet(&lane, nullptr, transposed ? Store<true> : Store<false>);
}

uint32_t TransposeMatrix(uint32_t r) {
  uint32_t transposed = 0;
  Meet(&r, &transposed, [](const void* const* in, void* const* out) {
    const auto element = [in](int i, int j) {
      const uint32_t pair = *static_cast<const uint32_t*>(in[4 * i + j / 2]);
      return pair >> (16 * (j % 2)) & 0xffffu;
    };
    for (int lane = 0; lane < 32; ++lane) {
      const int i = lane / 4;
      const int j = lane % 4 * 2;
      *static_cast<uint32_t*>(out[lane]) = element(j, i) | element(j + 1, i) << 16;
    }
  });
  return transposed;
}

}  // namespace gdn::emulator
