#include "kernels/cuda/device/launch.cuh"
#include "kernels/cuda/prefill/chunk_items.cuh"
#include "kernels/cuda/prefill/chunk_prepare_products.cuh"
#include "kernels/cuda/prefill/chunk_ring.cuh"
#include "kernels/cuda/prefill/chunk_sm90.h"

namespace gdn::cuda {
namespace prepare {
namespace {

// Marks the group's items as not ready: before it is at work on them, as another group's may be
// ready by then, and before any of the chain's blocks can run. An item by a thread.
__device__ __forceinline__ void ClearReady(const ChunkSm90Params& p, const Items& items,
                                           unsigned first, unsigned step) {
#pragma unroll 1
  for (unsigned n = first + threadIdx.x % kThreads * step; n < items.count();
       n += kThreads * step) {
    const Item item(items, items.place(n));
    for (int i = 0; i < item.heads; ++i) p.workspace.ready[item.record(p, i)] = 0;
  }
}

// Begins to bring in an item's keys, g and beta, as a group of copies.
template <typename T>
__device__ __forceinline__ void LoadKeys(const ChunkSm90Params& p, const Upcoming& next, uint4* k,
                                         Gates& gates) {
  const Item item = next.item();
  const int64_t begin = next.begin();
  const int length = next.length();
  const int64_t offset = int64_t{item.key_head} * kSm90Dim;
  const int thread = static_cast<int>(threadIdx.x) % kThreads;
  LoadPanels<kThreads>(SharedAddress(k),
                       static_cast<const T*>(p.rule.k) + begin * p.rule.k_stride + offset,
                       p.rule.k_stride, length);
  // The queries will follow: into L2, half a row by a thread.
  if (thread / 2 < length) {
    Prefetch(static_cast<const T*>(p.rule.q) + (begin + thread / 2) * p.rule.q_stride + offset +
             thread % 2 * (kSm90Dim / 2));
  }
  // Half of the threads take g, half beta.
  const int token = thread % kChunk;
  const bool is_g = thread < kChunk;
  const float* from = is_g ? p.rule.g : p.rule.beta;
  const bool given = from != nullptr;
  const bool valid = token < length;
  from += (begin + (valid ? token : 0)) * p.rule.heads.value_heads + item.first_head;
#pragma unroll
  for (int i = 0; i < kMaxHeads; ++i) {
    if (i >= item.heads) break;
    float* to = (is_g ? gates.g : gates.beta)[i] + token;
    if (given) {
      CopyAsyncFloat(SharedAddress(to), from + i, valid);
    } else {
      *to = valid && !is_g ? 1.0f : 0.0f;
    }
  }
}

// The same of its queries.
template <typename T>
__device__ __forceinline__ void LoadQueries(const ChunkSm90Params& p, const Upcoming& next,
                                            Shared& shared) {
  LoadPanels<kThreads>(SharedAddress(shared.q),
                       static_cast<const T*>(p.rule.q) + next.begin() * p.rule.q_stride +
                           int64_t{next.item().key_head} * kSm90Dim,
                       p.rule.q_stride, next.length());
}

// Heads of an item whose X and P are on their way to where the chains look for them.
struct Sent {
  unsigned* ready;  // of the item's first head
  int begin = 0;
  int end = 0;
};

// Once all that the warp has sent is there, its part of these heads is ready.
__device__ __forceinline__ void MarkReady(const Shared& shared, const Sent& sent) {
  if (threadIdx.x % 32 == 0 && sent.begin < sent.end) {
    StoreBulkWait();
#pragma unroll 1
    for (int i = sent.begin; i < sent.end; ++i) {
      AddRelease(sent.ready + i, shared.in_ring[i] ? kInRing : kInOwnPlace);
    }
  }
  __syncwarp();
}

// Has the group see the copies that all threads have waited for, the tensor cores too.
__device__ __forceinline__ void GroupSyncCopies() {
  AsyncProxyFence();
  GroupSync();
}

// From k kᵀ, begun, to q kᵀ, the rows' norms and all that depends on the gates, A of the heads and
// the inverses of its diagonal's tiles.
template <typename T>
__device__ __forceinline__ void BeginHeads(const ChunkSm90Params& p, const Item& item, int warp,
                                           const uint4* k, const Gates& gates, Shared& shared,
                                           Square& kk, Square& qk) {
  const int half = static_cast<int>(threadIdx.x) % 32 / kTileDim;
  const TokenDecays decays = SumGates(gates.g[half], warp, shared.gamma[half]);
  WarpgroupWait();
  WarpgroupTouch(kk);
  const TileSum diagonal = DiagonalOf(kk, warp);
  StoreKeyFactors<T>(p, item, warp, decays, diagonal, shared);
  CopyAsyncWait<1>();
  if (threadIdx.x % 32 == 0) StoreBulkWaitRead();  // A takes the place of what is on its way
  GroupSyncCopies();
  MultiplyRows<T>(shared.q, k, qk);
  const int token = warp * kTileDim + static_cast<int>(threadIdx.x) % kTileDim;
  StoreQueryFactors(p, item, warp, decays, SquareOfRow<T>(shared.q, token), shared);
#pragma unroll 1
  for (int i = 0; i < item.heads; ++i) {
    StoreLowerAndInverse(kk, diagonal, i, warp, gates.beta[i], shared);
  }
  WarpgroupWait();
  WarpgroupTouch(qk);
}

// X and P of the heads one by one; returns those that have not been marked.
template <typename T>
__device__ __forceinline__ Sent FinishHeads(const ChunkSm90Params& p, const Item& item, int warp,
                                            const uint4* k, const Gates& gates, const Square& qk,
                                            Shared& shared) {
  Outbox outbox(shared, warp, 3 * item.heads);
  Sent sent = {p.workspace.ready + item.record(p, 0)};
#pragma unroll 1
  for (int i = 0; i < item.heads; ++i) {
    if (threadIdx.x % kThreads == 0) {
      shared.in_ring[i] = FindRingFree(p, item.chunk, item.first_head + i);
    }
    XOperands for_x;
    POperands for_p;
    if (i > 0) GroupSync();
    Invert<T>(i, warp, gates.beta[i], shared, for_x);
    BeginP<T>(qk, i, warp, gates.beta[i], shared, for_p);
    if (p.plan.ring) {
      MarkReady(shared, sent);
      sent.begin = i;
    }
    sent.end = i + 1;
    AsyncProxyFence();
    GroupSync();
    const int64_t record = RecordOf(p, item.chunk, item.first_head + i, shared.in_ring[i]);
    if (threadIdx.x % 32 == 0) AsyncProxyFenceGlobal();
    uint4* to_p = static_cast<uint4*>(p.workspace.p) + record * kPanelPieces;
    uint4* to_x = static_cast<uint4*>(p.workspace.x) + record * kRecord;
    MultiplyP<T>(for_p, shared.after.t);
    Square left, right;
    MultiplyX<T>(for_x, k, left);
    WarpgroupWait<1>();
    SendP<T>(for_p, outbox, to_p);
    MultiplyX<T>(for_x, k + kPanelPieces, right);
    OwnKeys keys;
    LoadOwnKeys(warp, k, keys);
    WarpgroupWait<1>();
    SendX<T>(for_x, keys, left, outbox, to_x);
    LoadOwnKeys(warp, k + kPanelPieces, keys);
    WarpgroupWait();
    SendX<T>(for_x, keys, right, outbox, to_x + kPanelPieces);
  }
  if (threadIdx.x % 32 == 0) StoreBulkWaitRead<1>();  // q's place is free again
  GroupSync();
  return sent;
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
  const int warp = GroupWarp();
  Shared& shared = reinterpret_cast<Shared*>(dynamic)[group];
  if (lead) GridDependencyWait();
  const Items items(p, begin, end);
  const unsigned step = gridDim.x * kGroups;
  const unsigned first = group * gridDim.x + blockIdx.x;
  Upcoming next(p, items, first, step);
  bool more = next.Next();
  if (more) {
    LoadKeys<T>(p, next, shared.k[0], shared.gates[0]);
    CopyAsyncCommit();
    LoadQueries<T>(p, next, shared);
    CopyAsyncCommit();
  }
  ClearReady(p, items, first, step);
  ClearTaken(p);
  __threadfence();
  __syncthreads();
  GridDependencyLaunch();
  Sent sent = {};
  for (int buffer = 0; more; buffer ^= 1) {
    const Item item = next.item();
    uint4* k = shared.k[buffer];
    const Gates& gates = shared.gates[buffer];
    CopyAsyncWait<1>();
    GroupSyncCopies();
    if (std::is_same_v<T, __half>) {
      NormalizeRows<T>(k, warp * kTileDim,
                       [&](int row, float scale) { shared.k_scale[row] = scale; });
      GroupSyncCopies();
    }
    more = next.Next();
    if (more) LoadKeys<T>(p, next, shared.k[buffer ^ 1], shared.gates[buffer ^ 1]);
    CopyAsyncCommit();
    Square kk, qk;
    MultiplyRows<T>(k, k, kk);
    // Of the last item. Through a ring, chains keep pace with this: they hear of it at once. Others
    // may hear of it later, when its copies need not be waited for any more.
    if (p.plan.ring) MarkReady(shared, sent);
    BeginHeads<T>(p, item, warp, k, gates, shared, kk, qk);
    if (!p.plan.ring) MarkReady(shared, sent);
    GroupSync();
    sent = FinishHeads<T>(p, item, warp, k, gates, qk, shared);
    if (more) LoadQueries<T>(p, next, shared);
    CopyAsyncCommit();
  }
  MarkReady(shared, sent);
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
