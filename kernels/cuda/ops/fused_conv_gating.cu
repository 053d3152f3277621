#include <algorithm>

#include "kernels/cuda/device/launch.cuh"
#include "kernels/cuda/device/ptx.cuh"
#include "kernels/cuda/ops/causal_conv1d.cuh"
#include "kernels/cuda/ops/causal_conv1d.h"
#include "kernels/cuda/ops/fused_conv_gating.h"
#include "kernels/cuda/ops/fused_gdn_gating.cuh"
#include "kernels/cuda/ops/fused_gdn_gating.h"

namespace gdn::cuda {
namespace {

constexpr int kUnit = 16;  // tokens; sweeps are of whole units
constexpr int kChunkUnits = kChunk / kUnit;
constexpr int64_t kMostChunks = int64_t{1} << 24;  // so that an int holds their tokens
constexpr int kGateTokens = 32;                    // of a block

struct Grid {
  unsigned tiles;   // of channels; the blocks of one stretch of tokens follow one another
  int units;        // of the batch: a chunk has kChunkUnits, whatever its length
  int sweep_units;  // of a sweep
  unsigned blocks;  // that convolve; behind them come those that make gates
};

// The sweeps of one thread: its units of the batch, divided where rows end.
class Walk {
 public:
  __device__ Walk(const Rows& rows, const Chunks& chunks, const Grid& grid, int sweep)
      : rows_(rows),
        chunks_(chunks),
        unit_(sweep * grid.sweep_units),
        end_(min(unit_ + grid.sweep_units, grid.units)) {}

  // Whether there is one more; `sweep` becomes that.
  __device__ __forceinline__ bool Next(conv::Sweep& sweep) {
    while (unit_ < end_) {
      const int64_t chunk = unit_ / kChunkUnits;
      const int64_t of_row = chunks_.chunk_indices[2 * chunk + 1];
      sweep.row = chunks_.chunk_indices[2 * chunk];
      sweep.row_begin = rows_.offsets[sweep.row];
      sweep.length = rows_.offsets[sweep.row + 1] - sweep.row_begin;
      sweep.first = (of_row * kChunkUnits + unit_ % kChunkUnits) * kUnit;
      const int64_t row_end = (chunk - of_row + (sweep.length + kChunk - 1) / kChunk) * kChunkUnits;
      const int next = static_cast<int>(min(int64_t{end_}, row_end));
      sweep.count =
          static_cast<int>(min(int64_t{next - unit_} * kUnit, sweep.length - sweep.first));
      unit_ = next;
      if (sweep.count > 0) return true;
    }
    return false;
  }

 private:
  const Rows& rows_;
  const Chunks& chunks_;
  int unit_;
  int end_;
};

template <typename T>
__device__ __forceinline__ void MakeGates(const FusedGdnGatingParams& p, unsigned block) {
  const int thread = threadIdx.y * conv::kLanes + threadIdx.x;
  const int64_t first = int64_t{block} * kGateTokens;
  GateTokens<T>(p, first + thread / 32, min(first + kGateTokens, p.tokens), conv::kThreads / 32,
                thread % 32);
}

template <typename T, int kWidth, int kPack>
__global__ void __launch_bounds__(conv::kThreads, conv::kBlocks)
    FusedConvGatingKernel(const __grid_constant__ FusedConvGatingParams p,
                          const __grid_constant__ Chunks chunks,
                          const __grid_constant__ Grid grid) {
  if (blockIdx.x >= grid.blocks) {
    GridDependencyWait();
    return MakeGates<T>(p.gating, blockIdx.x - grid.blocks);
  }
  __shared__ conv::StagedWeights<kWidth, kPack> staged;
  const conv::Tile<kPack> tile(blockIdx.x % grid.tiles);
  Walk walk(p.conv.rows, chunks, grid,
            static_cast<int>(blockIdx.x / grid.tiles * conv::kSweeps + threadIdx.y));
  conv::Sweep sweep;
  staged.Load(p.conv, tile.first_channel);
  bool more = walk.Next(sweep) && tile.channel < p.conv.channels;
  __syncthreads();
  GridDependencyWait();
  GridDependencyLaunch();
  while (more) {
    conv::SweepOfPack<T, kWidth, kPack> pack(p.conv, sweep, tile.channel);
    pack.Finish(conv::Filter<kWidth, kPack>(p.conv, staged, tile.channel));
    more = walk.Next(sweep);
  }
}

// Sweeps so long that one wave of blocks takes all: weights are loaded once and nothing waits for a
// block to end. The gates take what places are left.
Grid GridOf(int64_t chunks, unsigned tiles, int sms) {
  Grid grid = {};
  grid.tiles = tiles;
  grid.units = static_cast<int>(chunks) * kChunkUnits;
  const int places = std::max(1, sms * conv::kBlocks * conv::kSweeps / static_cast<int>(tiles));
  grid.sweep_units = (grid.units + places - 1) / places;
  const int sweeps = (grid.units + grid.sweep_units - 1) / grid.sweep_units;
  grid.blocks = (sweeps + conv::kSweeps - 1) / conv::kSweeps * tiles;
  return grid;
}

cudaError_t CountSms(int* sms) {
  int device;
  const cudaError_t error = cudaGetDevice(&device);
  return error != cudaSuccess ? error
                              : cudaDeviceGetAttribute(sms, cudaDevAttrMultiProcessorCount, device);
}

}  // namespace

cudaError_t FusedConvGating(const FusedConvGatingParams& p, const Chunks& chunks,
                            cudaStream_t stream) {
  const bool gates = p.gating.tokens > 0 && p.gating.value_heads > 0;
  if (!conv::Valid(p.conv) || chunks.count < 0 || chunks.count > kMostChunks || !Valid(p.gating) ||
      (gates && p.gating.io != p.conv.io)) {
    return cudaErrorInvalidValue;
  }
  if (chunks.count == 0 || p.conv.channels == 0) return FusedGdnGating(p.gating, stream);
  int sms;
  if (const cudaError_t error = CountSms(&sms); error != cudaSuccess) return error;
  return conv::Specialise(p.conv, [&](auto element, auto width, auto pack) {
    const unsigned tiles = conv::Tiles(p.conv, 1, pack.value);
    if (tiles == 0) return cudaErrorInvalidValue;
    const Grid grid = GridOf(chunks.count, tiles, sms);
    const int64_t gate_blocks = gates ? (p.gating.tokens + kGateTokens - 1) / kGateTokens : 0;
    return LaunchDependent(FusedConvGatingKernel<decltype(element), width.value, pack.value>,
                           static_cast<unsigned>(grid.blocks + gate_blocks),
                           dim3(conv::kLanes, conv::kSweeps), 0, stream, p, chunks, grid);
  });
}

cudaError_t CausalConv1dFn(const CausalConv1dFnParams& p, const Chunks& chunks,
                           cudaStream_t stream) {
  return FusedConvGating({.conv = p, .gating = {}}, chunks, stream);
}

}  // namespace gdn::cuda
