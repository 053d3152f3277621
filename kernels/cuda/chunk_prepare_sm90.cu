#include "kernels/cuda/chunk_items.cuh"
#include "kernels/cuda/chunk_prepare_products.cuh"
#include "kernels/cuda/chunk_sm90.h"
#include "kernels/cuda/launch.cuh"

namespace gdn::cuda {
namespace prepare {
namespace {

// Marks the item's heads as not ready: before any of the chain's blocks can run.
__device__ __forceinline__ void ClearReady(const ChunkSm90Params& p, const Item& item) {
  const int head = static_cast<int>(threadIdx.x) % kThreads;
  if (head < item.heads) p.workspace.ready[item.record(p, head)] = 0;
}

// Begins to bring in an item's rows, g and beta.
template <typename T>
__device__ __forceinline__ void LoadItem(const ChunkSm90Params& p, const Upcoming& next, uint4* k,
                                         Shared& shared) {
  const Item item = next.item();
  const int64_t offset = int64_t{item.key_head} * kSm90Dim;
  LoadPanels<kThreads>(SharedAddress(k),
                       static_cast<const T*>(p.rule.k) + next.begin() * p.rule.k_stride + offset,
                       p.rule.k_stride, next.length());
  LoadPanels<kThreads>(SharedAddress(shared.q),
                       static_cast<const T*>(p.rule.q) + next.begin() * p.rule.q_stride + offset,
                       p.rule.q_stride, next.length());
  // Half of the threads take g, half beta.
  const int token = static_cast<int>(threadIdx.x) % kChunk;
  const bool is_g = threadIdx.x % kThreads < kChunk;
  const float* from = is_g ? p.rule.g : p.rule.beta;
  if (from == nullptr) return;
  const bool valid = token < next.length();
  from += (next.begin() + (valid ? token : 0)) * p.rule.heads.value_heads + item.first_head;
  for (int i = 0; i < item.heads; ++i) {
    CopyAsyncFloat(SharedAddress((is_g ? shared.next_g : shared.next_beta)[i] + token), from + i,
                   valid);
  }
}

// From rows in shared memory to products of keys and queries, their norms and all that depends on
// the gates; a warp sees to the gates of one head.
template <typename T>
__device__ __forceinline__ void Begin(const ChunkSm90Params& p, const Item& item, int length,
                                      uint4* k_rows, Shared& shared, Square& kk, Square& qk) {
  const int mine = GroupWarp();
  CopyAsyncWait();
  AsyncProxyFence();
  GroupSync();
  if (std::is_same_v<T, __half> && p.rule.qk_l2norm) {
    NormalizeRows<T>(k_rows, mine * kTileDim);
    AsyncProxyFence();
    GroupSync();
  }
  TileSum qq;
  MultiplyRows<T>(k_rows, shared.q, kk, qk, qq);
#pragma unroll
  for (int j = 0; j < kBlocks; ++j) {
    if (j == mine) StoreNorms<T>(p, SumOf(kk, j), qq, shared);
  }
  if (item.first_piece) {
    const int64_t record = (item.chunk * p.rule.heads.key_heads + item.key_head) * kRecord;
    StorePieces<kThreads, kRecord>(k_rows, static_cast<uint4*>(p.workspace.k) + record);
    StorePieces<kThreads, kRecord>(shared.q, static_cast<uint4*>(p.workspace.q) + record);
  }
  GroupSync();
  ScaleProducts(shared, kk, qk);
  if (mine < item.heads) {
    StoreGates(GatesOf(p, shared, mine, length), mine, shared,
               p.workspace.factors[item.record(p, mine)]);
  }
  GroupSync();
}

// X and P of the item's heads one by one.
template <typename T>
__device__ __forceinline__ void FinishHeads(const ChunkSm90Params& p, const Item& item,
                                            const uint4* k_rows, Shared& shared, const Square& kk,
                                            const Square& qk) {
  const auto finish = [&](int head) {
    if (threadIdx.x % kThreads == 0) StoreRelease(p.workspace.ready + item.record(p, head), 1);
  };
  for (int i = 0; i < item.heads; ++i) {
    const int64_t record = item.record(p, i);
    const float* beta = shared.beta[i];
    StoreLower(kk, LaneFactors(shared.gamma[i]), beta, shared.lower);
    GroupSync();
    if (i > 0) finish(i - 1);
    InvertUnitLower(shared.lower, GroupWarp(), GroupSync);
    PackInverse<T>(shared, beta, shared.decay[i]);
    GroupSync();
    XOperands for_x;
    LoadXOperands(shared.operands, for_x);
    StoreP<T>(qk, LaneFactors(shared.gamma[i]), beta, shared.operands.for_p,
              static_cast<uint32_t*>(p.workspace.p) + record * (kRecord / 2 * 4));
    GroupSync();
    StoreX<T>(for_x, k_rows, shared.x);
    GroupSync();
    StorePieces<kThreads, kRecord>(shared.x, static_cast<uint4*>(p.workspace.x) + record * kRecord);
    GroupSync();
  }
  finish(item.heads - 1);
}

// Chunks begin..end. With `lead`, kernels before this one have ended when its first block goes on;
// without, the one before is its lead, which has waited for them.
//
// In pairs, so that what is left of the SMs has room for the chain's.
template <typename T>
__global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(kGroups* kThreads, 1)
    PrepareKernel(ChunkSm90Params p, int64_t begin, int64_t end, bool lead) {
  extern __shared__ __align__(1024) unsigned char dynamic[];
  const int group = __shfl_sync(~0u, static_cast<int>(threadIdx.x) / kThreads, 0);  // uniform
  Shared& shared = reinterpret_cast<Shared*>(dynamic)[group];
  if (lead) GridDependencyWait();
  const Items items(p, begin, end);
  const unsigned step = gridDim.x * kGroups;
  const unsigned first = group * gridDim.x + blockIdx.x;
  Upcoming next(p, items, first, step);
  bool more = next.Next();
  if (more) LoadItem<T>(p, next, shared.k[0], shared);
  for (unsigned n = first; n < items.count(); n += step) ClearReady(p, Item(items, n));
  __threadfence();
  __syncthreads();
  GridDependencyLaunch();
  for (int buffer = 0; more; buffer ^= 1) {
    const Item item = next.item();
    Square kk, qk;
    Begin<T>(p, item, next.length(), shared.k[buffer], shared, kk, qk);
    more = next.Next();
    if (more) LoadItem<T>(p, next, shared.k[buffer ^ 1], shared);
    FinishHeads<T>(p, item, shared.k[buffer], shared, kk, qk);
  }
  if (!lead) GridDependencyWait();  // so that the end of this is that of its lead too
}

}  // namespace
}  // namespace prepare

cudaError_t ChunkPrepareSm90(const ChunkSm90Params& p, cudaStream_t stream) {
  const auto kernel = p.rule.io == DType::kFp16 ? prepare::PrepareKernel<__half>
                                                : prepare::PrepareKernel<__nv_bfloat16>;
  const auto launch = [&](int blocks, int64_t begin, int64_t end, bool lead) {
    return LaunchDependent(kernel, blocks, prepare::kGroups * prepare::kThreads,
                           prepare::kGroups * sizeof(prepare::Shared), stream, p, begin, end, lead);
  };
  const int64_t lead = p.plan.lead_chunks;
  cudaError_t error = cudaSuccess;
  if (lead > 0) error = launch(p.plan.lead_blocks, 0, lead, true);
  if (error == cudaSuccess && lead < p.chunks.count) {
    error = launch(p.plan.beside_blocks, lead, p.chunks.count, lead == 0);
  }
  return error;
}

}  // namespace gdn::cuda
