#include "kernels/cuda/chunk_segments_sm90.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ptx.cuh"

namespace gdn::cuda {
namespace compose {
namespace {

// A block takes 16 rows of a head's states, a warp 16 of their columns. With g = lane / 4 and
// t = lane % 4, a lane has rows g and g + 8 and columns 4t..4t+3 of the warp's.
constexpr int kWarps = 8;
constexpr int kThreads = kWarps * 32;
constexpr int kRows = 16;
constexpr int kColumns = kSm90Dim / kWarps;
constexpr int kSteps = kSm90Dim / 8;   // of products of 8 numbers each
constexpr int kStride = kSm90Dim + 8;  // of rows in shared memory: pairs in different banks
constexpr int64_t kMatrix = kSm90Dim * kSm90Dim;

// fp32 as the sum of two numbers of tf32.
struct Split {
  float high;
  float low;

  explicit __device__ Split(float x) {
    high = __uint_as_float(__float_as_uint(RoundToTf32(x)) & ~0x1fffu);
    low = RoundToTf32(x - high);
  }
};

struct Rows {
  float4 top;     // of row g
  float4 bottom;  // of row g + 8
};

__device__ __forceinline__ Rows LoadRows(const float* from, int stride) {
  return {*reinterpret_cast<const float4*>(from),
          *reinterpret_cast<const float4*>(from + 8 * stride)};
}
__device__ __forceinline__ void StoreRows(const Rows& rows, float* to, int stride) {
  *reinterpret_cast<float4*>(to) = rows.top;
  *reinterpret_cast<float4*>(to + 8 * stride) = rows.bottom;
}

// Of a step's rows of a map 2t and 2t + 1, columns 2g and 2g + 1 of the warp's.
struct MapPart {
  float2 even;
  float2 odd;

  explicit __device__ MapPart(const float* from)
      : even(*reinterpret_cast<const float2*>(from)),
        odd(*reinterpret_cast<const float2*>(from + kSm90Dim)) {}
  MapPart() = default;
};

// d += a * b, dropping what is below 2^-22 of the terms.
__device__ __forceinline__ void MultiplyAdd(float (&d)[4], const Split (&a)[4], float b0,
                                            float b1) {
  const Split x(b0), y(b1);
  MmaTf32(d, a[0].low, a[1].low, a[2].low, a[3].low, x.high, y.high);
  MmaTf32(d, a[0].high, a[1].high, a[2].high, a[3].high, x.low, y.low);
  MmaTf32(d, a[0].high, a[1].high, a[2].high, a[3].high, x.high, y.high);
}

// starts[i + 1] += starts[i] * maps[i] for the segments i = 1, 2… but the last. The next map is
// fetched while one is at work.
__global__ void __launch_bounds__(kThreads, 1) ComposeKernel(ChunkSm90Params p) {
  __shared__ __align__(16) float shared[2][kRows * kStride];
  GridDependencyLaunch();
  GridDependencyWait();
  if (p.rule.rows.slot(0) < 0) return;
  const int g = threadIdx.x % 32 / 4;
  const int t = threadIdx.x % 4;
  const int column = static_cast<int>(threadIdx.x) / 32 * kColumns;
  const int first_row = static_cast<int>(blockIdx.x) * kRows;
  const int64_t step = p.rule.heads.value_heads * kMatrix;  // from segment to segment
  const int64_t first = step + blockIdx.y * kMatrix;        // of segment 1
  float* starts = p.workspace.starts + first + (first_row + g) * kSm90Dim + column + 4 * t;
  const float* maps = p.workspace.maps + first + 2 * t * kSm90Dim + column + 2 * g;
  const int count = p.segments.count - 2;

  MapPart map[kSteps];
#pragma unroll
  for (int k = 0; k < kSteps; ++k) map[k] = MapPart(maps + k * 8 * kSm90Dim);
  Rows rows = LoadRows(starts, kSm90Dim);
#pragma unroll 1
  for (int i = 0; i < count; ++i) {
    float* state = shared[i % 2];
    StoreRows(rows, state + g * kStride + column + 4 * t, kStride);
    starts += step;
    maps += step;
    rows = LoadRows(starts, kSm90Dim);
    float even[4] = {rows.top.x, rows.top.z, rows.bottom.x, rows.bottom.z};  // columns
    float odd[4] = {rows.top.y, rows.top.w, rows.bottom.y, rows.bottom.w};
    __syncthreads();
    const bool more = i + 1 < count;
#pragma unroll
    for (int k = 0; k < kSteps; ++k) {
      const float* at = state + g * kStride + k * 8 + 2 * t;
      const float2 top = *reinterpret_cast<const float2*>(at);
      const float2 bottom = *reinterpret_cast<const float2*>(at + 8 * kStride);
      const Split a[4] = {Split(top.x), Split(bottom.x), Split(top.y), Split(bottom.y)};
      MultiplyAdd(even, a, map[k].even.x, map[k].odd.x);
      MultiplyAdd(odd, a, map[k].even.y, map[k].odd.y);
      if (more) map[k] = MapPart(maps + k * 8 * kSm90Dim);
    }
    rows = {{even[0], odd[0], even[1], odd[1]}, {even[2], odd[2], even[3], odd[3]}};
    StoreRows(rows, starts, kSm90Dim);
  }
}

}  // namespace
}  // namespace compose

cudaError_t ChunkComposeSm90(const ChunkSm90Params& p, cudaStream_t stream) {
  const dim3 blocks(kSm90Dim / compose::kRows, static_cast<unsigned>(p.rule.heads.value_heads));
  return LaunchDependent(compose::ComposeKernel, blocks, compose::kThreads, 0, stream, p);
}

}  // namespace gdn::cuda
