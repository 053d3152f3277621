#include <algorithm>

#include "kernels/cuda/device/launch.cuh"
#include "kernels/cuda/prefill/chunk_fused_make.cuh"
#include "kernels/cuda/prefill/chunk_fused_state.cuh"

namespace gdn::cuda {
namespace fused {
namespace {

// What the two roles have of an SM's 512 registers for a thread of each warpgroup.
constexpr int kKeepRegisters = 176;
constexpr int kMakeRegisters = 80;
static_assert(kHalves * kKeepRegisters + kMakers * kMakeRegisters <= 512);

__device__ void InitBarriers(Shared& shared) {
  const auto init = [](uint64_t& barrier, unsigned arrivals) {
    BarrierInit(SharedAddress(&barrier), arrivals);
  };
  for (int maker = 0; maker < kMakers; ++maker) {
    for (uint64_t& barrier : shared.loaded[maker]) init(barrier, kRecords);
    init(shared.made[maker], kGroupThreads);
    init(shared.read[maker], kHalves * kGroupThreads / 32);
    init(shared.used[maker], kHalves * kGroupThreads);
  }
  BarrierInitFence();
}

template <typename T, typename S>
__global__ void __launch_bounds__(kThreads, 1)
    FusedKernel(ChunkSm90Params p, const __grid_constant__ Tensors tensors) {
  extern __shared__ __align__(1024) unsigned char dynamic[];
  Shared& shared = *reinterpret_cast<Shared*>(dynamic);
  const int group = __shfl_sync(~0u, static_cast<int>(threadIdx.x) / kGroupThreads, 0);  // uniform
  if (threadIdx.x == 0) InitBarriers(shared);
  __syncthreads();
  GridDependencyWait();
  GridDependencyLaunch();
  if (group < kHalves) {
    WarpgroupTakeRegisters<kKeepRegisters>();
    Keep<T, S>(p, tensors, shared);
  } else {
    WarpgroupGiveRegisters<kMakeRegisters>();
    Make<T>(p, tensors, shared, group - kHalves);
  }
}

cudaError_t MapTensors(const ChunkGatedDeltaRuleParams& rule, int64_t tokens, Tensors* tensors) {
  cudaError_t error = cudaSuccess;
  const auto map = [&](const void* data, int heads, int64_t stride, TensorMap* to) {
    if (error != cudaSuccess) return;
    error = MapPanels(data, int64_t{heads} * kSm90Dim, tokens, stride, to);
  };
  map(rule.q, rule.heads.key_heads, rule.q_stride, &tensors->q);
  map(rule.k, rule.heads.key_heads, rule.k_stride, &tensors->k);
  map(rule.v, rule.heads.value_heads, rule.v_stride, &tensors->v);
  map(rule.o, rule.heads.value_heads, rule.o_stride, &tensors->o);
  return error;
}

template <typename T, typename S>
cudaError_t Launch(ChunkSm90Params p, const Tensors& tensors, cudaStream_t stream) {
  const int launches = p.plan.phases ? kPhases : 1;
  cudaError_t error = cudaSuccess;
  for (p.phase = 0; p.phase < launches && error == cudaSuccess; ++p.phase) {
    error = LaunchDependent(FusedKernel<T, S>, p.plan.fused_blocks, kThreads, sizeof(Shared),
                            stream, p, tensors);
  }
  return error;
}

template <typename T>
cudaError_t LaunchState(const ChunkSm90Params& p, const Tensors& tensors, cudaStream_t stream) {
  return p.rule.ssm.type == DType::kBf16 ? Launch<T, __nv_bfloat16>(p, tensors, stream)
                                         : Launch<T, float>(p, tensors, stream);
}

}  // namespace
}  // namespace fused

cudaError_t ChunkFusedSm90(const ChunkSm90Params& p, int64_t tokens, cudaStream_t stream) {
  fused::Tensors tensors;
  const cudaError_t error = fused::MapTensors(p.rule, tokens, &tensors);
  if (error != cudaSuccess) return error;
  return p.rule.io == DType::kFp16 ? fused::LaunchState<__half>(p, tensors, stream)
                                   : fused::LaunchState<__nv_bfloat16>(p, tensors, stream);
}

}  // namespace gdn::cuda
