#include "kernels/cuda/device/launch.cuh"
#include "kernels/cuda/prefill/chunk_chain_advance.cuh"
#include "kernels/cuda/prefill/chunk_chain_loads.cuh"
#include "kernels/cuda/prefill/chunk_segments_sm90.h"

namespace gdn::cuda {
namespace chain {
namespace {

using Form = WithoutOutput;

// The warp's rows of the unit matrix.
__device__ __forceinline__ void SetUnit(State& s) {
  ForEachPair(s, [&](int row, int column, float* pair) {
    row += FirstRow<Form>();
    pair[0] = row == column ? 1.0f : 0.0f;
    pair[1] = row == column + 1 ? 1.0f : 0.0f;
  });
}

__device__ __forceinline__ void StoreMap(const ChunkSm90Params& p, const Work& work, State& s) {
  const int64_t record = int64_t{work.segment} * p.rule.heads.value_heads + work.head;
  StoreState(s, p.workspace.maps + (record * kSm90Dim + FirstRow<Form>()) * kMapStride, kMapStride);
}

// The state's track by the cluster's first block, the map's by the second.
template <typename T>
__device__ void Advance(const ChunkSm90Params& p, const Range& range, Shared<Form>& shared) {
  Turn<Form::kStages> turn;
  Turn<kOutBuffers<Form::Out>> none;
  const bool map = ClusterRank() != 0;
  ForEachWork(p, range, [&](const Work& work) {
    if (work.pad || work.chunks == 0) return;
    State s = {};
    if (map) SetUnit(s);
    WarpgroupTouch(s);
    AdvanceRow<T, Form>(work.chunks, !map, turn, none, shared, s);
    if (map) {
      StoreMap(p, work, s);
    } else {
      StoreState(s, StartRows<Form>(p, work, work.segment + 1));
    }
  });
}

template <typename T>
__global__ void __cluster_dims__(kPair, 1, 1) __launch_bounds__(Form::kThreads, 1)
    TracksKernel(ChunkSm90Params p, Range range) {
  extern __shared__ __align__(1024) unsigned char dynamic[];
  Shared<Form>& shared = *reinterpret_cast<Shared<Form>*>(dynamic);
  const int warp = __shfl_sync(~0u, static_cast<int>(threadIdx.x / 32), 0);  // uniform
  if (threadIdx.x == 0) InitBarriers(shared);
  ClusterSync();
  GridDependencyLaunch();
  if (warp < Form::kWarps) {
    WarpgroupTakeRegisters<Form::kAdvanceRegisters>();
    Advance<T>(p, range, shared);
  } else {
    WarpgroupGiveRegisters<Form::kLoadRegisters>();
    if (warp < Form::kWarps + Form::kLoaders) {
      Load<T, Form>(p, range, static_cast<Part>(warp - Form::kWarps), shared);
    }
  }
  __syncwarp();
  ClusterSync();
  GridDependencyWait();  // so that the end of this is that of the first segment's chain too
}

template <typename T>
cudaError_t Launch(const ChunkSm90Params& p, cudaStream_t stream) {
  const Range range = {1, p.segments.count - 1};
  const auto blocks = static_cast<unsigned>(WorkCount(p, range) * kPair);
  return LaunchDependent(TracksKernel<T>, dim3(blocks), Form::kThreads, sizeof(Shared<Form>),
                         stream, p, range);
}

}  // namespace
}  // namespace chain

cudaError_t ChunkTracksSm90(const ChunkSm90Params& p, cudaStream_t stream) {
  return p.rule.io == DType::kFp16 ? chain::Launch<__half>(p, stream)
                                   : chain::Launch<__nv_bfloat16>(p, stream);
}

}  // namespace gdn::cuda
