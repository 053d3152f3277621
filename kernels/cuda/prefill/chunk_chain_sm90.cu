#include "kernels/cuda/device/launch.cuh"
#include "kernels/cuda/prefill/chunk_chain_advance.cuh"
#include "kernels/cuda/prefill/chunk_chain_loads.cuh"
#include "kernels/cuda/prefill/chunk_chain_stores.cuh"
#include "kernels/cuda/prefill/chunk_segments_sm90.h"
#include "kernels/cuda/prefill/chunk_sm90.h"

namespace gdn::cuda {
namespace chain {
namespace {

// A row's state in the pool, from the warp's first row of a head on; null where there is no pool.
template <typename S, typename Form>
__device__ __forceinline__ S* PoolRows(const ChunkSm90Params& p, const Work& work) {
  if (p.rule.ssm.data == nullptr) return nullptr;
  return static_cast<S*>(p.rule.ssm.data) + p.rule.rows.slot(work.row) * p.rule.ssm.slot_stride +
         (int64_t{work.head} * kSm90Dim + FirstRow<Form>()) * kSm90Dim;
}

template <typename T, typename Form, typename S>
__device__ void Advance(const ChunkSm90Params& p, const Range& range, Shared<Form>& shared) {
  Turn<Form::kStages> turn;
  Turn<kOutBuffers<typename Form::Out>> o_turn;
  if (range.begin > 0) GridDependencyWait();  // for what they begin with
  ForEachWork(p, range, [&](const Work& work) {
    if (work.pad || work.chunks == 0) return;
    S* pool = PoolRows<S, Form>(p, work);
    State s = {};
    if (work.segment > 0) {
      LoadState(StartRows<Form>(p, work, work.segment), s);
    } else if (pool != nullptr && p.rule.rows.has_state(work.row)) {
      LoadState(pool, s);
    }
    WarpgroupTouch(s);
    AdvanceRow<T, Form>(work.chunks, true, turn, o_turn, shared, s);
    if (!work.last) {
      StoreState(s, StartRows<Form>(p, work, work.segment + 1));
    } else if (pool != nullptr) {
      StoreState(s, pool);
    }
  });
}

template <typename T, typename Form, typename S>
__global__ void __cluster_dims__(kPair, 1, 1) __launch_bounds__(Form::kThreads, 1)
    ChainKernel(ChunkSm90Params p, Range range) {
  extern __shared__ __align__(1024) unsigned char dynamic[];
  Shared<Form>& shared = *reinterpret_cast<Shared<Form>*>(dynamic);
  const int warp = __shfl_sync(~0u, static_cast<int>(threadIdx.x / 32), 0);  // uniform
  if (threadIdx.x == 0) InitBarriers(shared);
  ClusterSync();
  if (range.end < p.segments.count) GridDependencyLaunch();
  if (warp < Form::kWarps) {
    Advance<T, Form, S>(p, range, shared);
  } else if (warp < Form::kWarps + Form::kLoaders) {
    Load<T, Form>(p, range, static_cast<Part>(warp - Form::kWarps), shared);
  } else {
    Store<Form>(p, range, shared);
  }
  __syncwarp();
  ClusterSync();
  GridDependencyWait();  // so that the end of this is that of prepare too
}

template <typename T, typename Out, typename S>
cudaError_t Launch(const ChunkSm90Params& p, const Range& range, cudaStream_t stream) {
  using Form = WithOutput<Out>;
  const int64_t clusters = p.segments.count == 1 ? p.plan.chain_clusters : WorkCount(p, range);
  return LaunchDependent(ChainKernel<T, Form, S>, dim3(static_cast<unsigned>(clusters * kPair)),
                         Form::kThreads, sizeof(Shared<Form>), stream, p, range);
}

template <typename T, typename Out>
cudaError_t LaunchState(const ChunkSm90Params& p, const Range& range, cudaStream_t stream) {
  return p.rule.ssm.type == DType::kBf16 ? Launch<T, Out, __nv_bfloat16>(p, range, stream)
                                         : Launch<T, Out, float>(p, range, stream);
}

template <typename T>
cudaError_t LaunchOut(const ChunkSm90Params& p, const Range& range, cudaStream_t stream) {
  return p.rule.o_type == DType::kFp32 ? LaunchState<T, float>(p, range, stream)
                                       : LaunchState<T, T>(p, range, stream);
}

// The chain of the segments `range`.
cudaError_t Chain(const ChunkSm90Params& p, const Range& range, cudaStream_t stream) {
  return p.rule.io == DType::kFp16 ? LaunchOut<__half>(p, range, stream)
                                   : LaunchOut<__nv_bfloat16>(p, range, stream);
}

}  // namespace
}  // namespace chain

cudaError_t ChunkChainSm90(const ChunkSm90Params& p, cudaStream_t stream) {
  cudaError_t error = chain::Chain(p, {0, 1}, stream);
  if (p.segments.count == 1) return error;
  if (error == cudaSuccess) error = ChunkTracksSm90(p, stream);
  if (error == cudaSuccess) error = ChunkComposeSm90(p, stream);
  if (error == cudaSuccess) error = chain::Chain(p, {1, p.segments.count}, stream);
  return error;
}

}  // namespace gdn::cuda
