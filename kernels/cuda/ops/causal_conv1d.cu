#include "kernels/cuda/ops/causal_conv1d.cuh"
#include "kernels/cuda/ops/causal_conv1d.h"

namespace gdn::cuda {
namespace {

// A block's sweeps are rows of one token.
template <typename T, int kWidth, int kPack>
__global__ void __launch_bounds__(conv::kThreads)
    CausalConv1dUpdateKernel(CausalConv1dUpdateParams p, unsigned tiles) {
  __shared__ conv::StagedWeights<kWidth, kPack> staged;
  const conv::Tile<kPack> tile(blockIdx.x % tiles);
  const int64_t row = int64_t{blockIdx.x / tiles} * conv::kSweeps + threadIdx.y;
  staged.Load(p, tile.first_channel);
  __syncthreads();
  if (row >= p.rows.count || tile.channel >= p.channels) return;
  const conv::Sweep sweep = {row, row, 1, 0, 1};
  conv::SweepOfPack<T, kWidth, kPack> pack(p, sweep, tile.channel);
  pack.Finish(conv::Filter<kWidth, kPack>(p, staged, tile.channel));
}

}  // namespace

cudaError_t CausalConv1dUpdate(const CausalConv1dUpdateParams& p, cudaStream_t stream) {
  if (!conv::Valid(p)) return cudaErrorInvalidValue;
  if (p.rows.count == 0 || p.channels == 0) return cudaSuccess;
  return conv::Specialise(p, [&](auto element, auto width, auto pack) {
    const int64_t blocks = (p.rows.count + conv::kSweeps - 1) / conv::kSweeps;
    const unsigned tiles = conv::Tiles(p, blocks, pack.value);
    if (tiles == 0) return cudaErrorInvalidValue;
    CausalConv1dUpdateKernel<decltype(element), width.value, pack.value>
        <<<static_cast<unsigned>(blocks) * tiles, dim3(conv::kLanes, conv::kSweeps), 0, stream>>>(
            p, tiles);
    return cudaGetLastError();
  });
}

}  // namespace gdn::cuda
