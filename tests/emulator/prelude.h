// Before every translated kernel file: what nvcc gives device code, by the machine in software.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <tuple>
#include <type_traits>
#include <typeinfo>
#include <utility>

#include "tests/emulator/machine.h"
#include "tests/emulator/runtime.h"
#include "tests/emulator/shared_memory.h"
#include "tests/emulator/warp.h"

#undef __shared__  // what is left of it was not translated
#undef __launch_bounds__
#define __launch_bounds__(...)
#undef __cluster_dims__
#define __cluster_dims__(...)
#undef __grid_constant__
#define __grid_constant__

#define threadIdx (::gdn::emulator::self->index)
#define blockIdx (::gdn::emulator::self->block->index)

// No macros: launch configurations have members of these names.
template <gdn::emulator::Size gdn::emulator::Grid::*kOf>
struct GridSize {
  template <unsigned gdn::emulator::Size::*kAxis>
  struct Along {
    operator unsigned() const { return gdn::emulator::self->block->grid->*kOf.*kAxis; }
  };
  Along<&gdn::emulator::Size::x> x;
  Along<&gdn::emulator::Size::y> y;
  Along<&gdn::emulator::Size::z> z;
};
inline constexpr GridSize<&gdn::emulator::Grid::block> blockDim;
inline constexpr GridSize<&gdn::emulator::Grid::size> gridDim;

template <typename A, typename B>
constexpr std::common_type_t<A, B> min(A a, B b) {
  return b < a ? b : a;
}
template <typename A, typename B>
constexpr std::common_type_t<A, B> max(A a, B b) {
  return a < b ? b : a;
}

inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __expf(float x) { return std::exp(x); }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
using std::isfinite;
using std::isnan;

inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
template <typename T>
T __ldg(const T* p) {
  return *p;
}

template <typename T>
T atomicAdd(T* p, T x) {
  return std::exchange(*p, *p + x);
}
inline unsigned atomicOr(unsigned* p, unsigned x) { return std::exchange(*p, *p | x); }
inline unsigned atomicAnd(unsigned* p, unsigned x) { return std::exchange(*p, *p & x); }
inline void __threadfence() {}

inline void __syncwarp() { gdn::emulator::MeetWarp(); }
inline void __syncthreads() { gdn::emulator::MeetBlock(0, 0, false); }
inline int __syncthreads_or(int x) { return gdn::emulator::MeetBlock(0, 0, x != 0); }

// Of whole warps.
inline unsigned __ballot_sync(unsigned, bool x) { return gdn::emulator::Ballot(x); }
inline bool __any_sync(unsigned, bool x) { return gdn::emulator::Ballot(x) != 0; }
template <typename T>
T __shfl_sync(unsigned, T x, int lane, int width = 32) {
  const int first = gdn::emulator::LaneOf() / width * width;
  return gdn::emulator::Shuffle(x, first + (lane & (width - 1)));
}
template <typename T>
T __shfl_xor_sync(unsigned, T x, int mask) {
  return gdn::emulator::Shuffle(x, (gdn::emulator::LaneOf() ^ mask) & 31);
}
template <typename T>
T __shfl_up_sync(unsigned, T x, int by, int width = 32) {
  const int lane = gdn::emulator::LaneOf();
  return gdn::emulator::Shuffle(x, lane % width < by ? lane : lane - by);
}

namespace gdn::emulator {

template <typename T>
T* DynamicShared() {
  return static_cast<T*>(DynamicSharedBytes());
}
template <typename T>
T& StaticShared(int line) {
  return *static_cast<T*>(StaticSharedBytes(line, sizeof(T), std::max<size_t>(alignof(T), 16)));
}

inline Size SizeOfDim(dim3 d) { return {d.x, d.y, d.z}; }

// What is called with a kernel's arguments to launch it.
template <typename Kernel>
struct Launcher {
  Kernel kernel;
  Grid grid;

  template <typename... Args>
  cudaError_t operator()(const Args&... args) {
    grid.kernel = [kernel = kernel, args = std::make_tuple(args...)] { std::apply(kernel, args); };
    return Launched(std::move(grid));
  }
};

template <typename Kernel>
Launcher<Kernel> Launch(const char* name, Kernel kernel, dim3 size, dim3 block, size_t bytes,
                        cudaStream_t) {
  Grid grid;
  grid.name = name;
  grid.size = SizeOfDim(size);
  grid.block = SizeOfDim(block);
  grid.dynamic_bytes = static_cast<unsigned>(bytes);
  return {kernel, std::move(grid)};
}

// Clusters that a kernel has by __cluster_dims__ are pairs.
template <typename... Params, typename... Args>
cudaError_t LaunchEx(const cudaLaunchConfig_t* config, void (*kernel)(Params...),
                     const Args&... args) {
  auto launch = Launch(NameOf(typeid(kernel)).c_str(), kernel, config->gridDim, config->blockDim,
                       config->dynamicSmemBytes, config->stream);
  launch.grid.cluster = config->gridDim.x % 2 == 0 ? 2 : 1;
  for (unsigned i = 0; i < config->numAttrs; ++i) {
    const cudaLaunchAttribute& attribute = config->attrs[i];
    if (attribute.id == cudaLaunchAttributeClusterDimension) {
      launch.grid.cluster = attribute.val.clusterDim.x;
    } else if (attribute.id == cudaLaunchAttributeProgrammaticStreamSerialization) {
      launch.grid.dependent = attribute.val.programmaticStreamSerializationAllowed != 0;
    }
  }
  return launch(args...);
}

}  // namespace gdn::emulator

#define cudaLaunchKernelEx(...) ::gdn::emulator::LaunchEx(__VA_ARGS__)
#define cudaFuncSetAttribute(...) (cudaSuccess)
