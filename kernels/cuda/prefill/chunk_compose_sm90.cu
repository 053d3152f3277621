#include "kernels/cuda/device/launch.cuh"
#include "kernels/cuda/device/ptx.cuh"
#include "kernels/cuda/prefill/chunk_segments_sm90.h"

namespace gdn::cuda {
namespace compose {
namespace {

// A block takes 16 rows of a head's states, a warp 16 of their columns. With g = lane / 4 and
// t = lane % 4, a lane has rows g and g + 8 and columns 4t..4t+3 of the warp's.
constexpr int kWarps = 8;
constexpr int kThreads = kWarps * 32;
constexpr int kRows = 16;
constexpr int kColumns = kSm90Dim / kWarps;
constexpr int kStages = 2;
constexpr int kStride = kSm90Dim + 8;  // of the states' rows: pairs of a tile in different banks
constexpr int64_t kState = kSm90Dim * kSm90Dim;
constexpr int64_t kMap = kSm90Dim * kMapStride;

// A number of fp32 is the sum of two that the tensor cores take: of the second they drop what is
// below 2^-22 of the number.
struct Split {
  float high;
  float low;

  explicit __device__ Split(float x) {
    high = __uint_as_float(__float_as_uint(RoundToTf32(x)) & ~0x1fffu);
    low = x - high;
  }
};

struct Shared {
  float map[kStages][kMap];
  float high[2][kRows * kStride];  // of this state and of the next
  float low[2][kRows * kStride];
  uint64_t full[kStages];
};

struct Rows {
  float4 top;     // of row g
  float4 bottom;  // of row g + 8
};

__device__ __forceinline__ Rows LoadRows(const float* from) {
  return {*reinterpret_cast<const float4*>(from),
          *reinterpret_cast<const float4*>(from + 8 * kSm90Dim)};
}
__device__ __forceinline__ void StoreRows(const Rows& rows, float* to) {
  *reinterpret_cast<float4*>(to) = rows.top;
  *reinterpret_cast<float4*>(to + 8 * kSm90Dim) = rows.bottom;
}
__device__ __forceinline__ void StoreSplit(const float4& row, float* high, float* low) {
  const Split x(row.x), y(row.y), z(row.z), w(row.w);
  *reinterpret_cast<float4*>(high) = {x.high, y.high, z.high, w.high};
  *reinterpret_cast<float4*>(low) = {x.low, y.low, z.low, w.low};
}

// The left operand of a product: rows g and g + 8, columns 2t and 2t + 1 of a tile of eight.
struct Left {
  float2 top;
  float2 bottom;

  explicit __device__ Left(const float* from)
      : top(*reinterpret_cast<const float2*>(from)),
        bottom(*reinterpret_cast<const float2*>(from + 8 * kStride)) {}
};

__device__ __forceinline__ void MultiplyAdd(float (&d)[4], const Left& a, float b0, float b1) {
  MmaTf32(d, a.top.x, a.bottom.x, a.top.y, a.bottom.y, b0, b1);
}

// Sums of every other column: 4t and 4t + 2 of the warp's, or those beside them.
struct Sums {
  float large[4] = {};
  float small[4] = {};

  __device__ __forceinline__ void Add(const Left& high, const Left& low, float b0, float b1) {
    const Split x(b0), y(b1);
    MultiplyAdd(small, low, x.high, y.high);
    MultiplyAdd(small, high, x.low, y.low);
    MultiplyAdd(large, high, x.high, y.high);
  }
  __device__ __forceinline__ float operator[](int i) const { return large[i] + small[i]; }
};

// The product of 16 rows of a state and the warp's columns of a map.
__device__ __forceinline__ Rows Multiply(const float* high, const float* low, const float* map) {
  const int g = threadIdx.x % 32 / 4;
  const int t = threadIdx.x % 4;
  const int at = g * kStride + 2 * t;
  map += 2 * t * kMapStride + static_cast<int>(threadIdx.x) / 32 * kColumns + 2 * g;
  Sums even, odd;
#pragma unroll
  for (int k = 0; k < kSm90Dim; k += 8) {
    const Left a(high + at + k), rest(low + at + k);
    const auto* pairs = reinterpret_cast<const float2*>(map + k * kMapStride);
    const float2 b0 = pairs[0];
    const float2 b1 = pairs[kMapStride / 2];
    even.Add(a, rest, b0.x, b1.x);
    odd.Add(a, rest, b0.y, b1.y);
  }
  return {{even[0], odd[0], even[1], odd[1]}, {even[2], odd[2], even[3], odd[3]}};
}

__device__ __forceinline__ Rows Sum(const Rows& a, const Rows& b) {
  const auto add = [](const float4& x, const float4& y) {
    return float4{x.x + y.x, x.y + y.y, x.z + y.z, x.w + y.w};
  };
  return {add(a.top, b.top), add(a.bottom, b.bottom)};
}

// starts[i + 1] += starts[i] * maps[i] for the segments i = 1, 2… but the last.
__global__ void __launch_bounds__(kThreads, 1) ComposeKernel(ChunkSm90Params p) {
  extern __shared__ __align__(16) unsigned char dynamic[];
  Shared& shared = *reinterpret_cast<Shared*>(dynamic);
  const int64_t heads = p.rule.heads.value_heads;
  const int64_t head = blockIdx.y;
  const int count = p.segments.count - 2;
  const auto load_map = [&](int i) {
    const uint32_t full = SharedAddress(&shared.full[i % kStages]);
    BarrierArriveExpect(full, sizeof(shared.map[0]));
    CopyBulk(SharedAddress(shared.map[i % kStages]),
             p.workspace.maps + ((i + 1) * heads + head) * kMap, sizeof(shared.map[0]), full);
  };
  if (threadIdx.x == 0) {
    for (uint64_t& full : shared.full) BarrierInit(SharedAddress(&full), 1);
    BarrierInitFence();
  }
  __syncthreads();
  GridDependencyLaunch();
  GridDependencyWait();
  if (p.rule.rows.slot(0) < 0) return;
  if (threadIdx.x == 0) {
    AsyncProxyFenceGlobal();
    for (int i = 0; i < min(count, kStages); ++i) load_map(i);
  }
  const int row = threadIdx.x % 32 / 4;
  const int column = static_cast<int>(threadIdx.x) / 32 * kColumns + threadIdx.x % 4 * 4;
  float* start = p.workspace.starts + (heads + head) * kState +
                 (static_cast<int>(blockIdx.x) * kRows + row) * kSm90Dim + column;
  const auto share = [&](const Rows& rows, int buffer) {
    float* high = shared.high[buffer] + row * kStride + column;
    float* low = shared.low[buffer] + row * kStride + column;
    StoreSplit(rows.top, high, low);
    StoreSplit(rows.bottom, high + 8 * kStride, low + 8 * kStride);
  };
  share(LoadRows(start), 0);
  __syncthreads();
  for (int i = 0; i < count; ++i) {
    start += heads * kState;
    const Rows local = LoadRows(start);
    BarrierWait(SharedAddress(&shared.full[i % kStages]), i / kStages % 2);
    const Rows rows =
        Sum(Multiply(shared.high[i % 2], shared.low[i % 2], shared.map[i % kStages]), local);
    share(rows, (i + 1) % 2);
    StoreRows(rows, start);
    __syncthreads();
    if (threadIdx.x == 0 && i + kStages < count) load_map(i + kStages);
  }
}

}  // namespace
}  // namespace compose

cudaError_t ChunkComposeSm90(const ChunkSm90Params& p, cudaStream_t stream) {
  const dim3 blocks(kSm90Dim / compose::kRows, static_cast<unsigned>(p.rule.heads.value_heads));
  return LaunchDependent(compose::ComposeKernel, blocks, compose::kThreads, sizeof(compose::Shared),
                         stream, p);
}

}  // namespace gdn::cuda
