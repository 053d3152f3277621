// Many rows: the blocks, one to a processor, take the rows of the key heads as they come to them.
// The copy engine moves the states of the value heads through a ring in shared memory, ahead of and
// behind the warps that update them, so that device memory never waits. What it reads stays in L2
// until it is written there again: as ordinary lines states cost up to 4 % more. Nobody else
// touches the conv state of the heads of a row that a block has taken.
#include <algorithm>

#include "kernels/cuda/gdn_decode_kernels.h"
#include "kernels/cuda/gdn_decode_stream.cuh"

namespace gdn::cuda::decode {
namespace {

// Whether what of the row's input falls to this of `threads` threads has NaN or infinity.
template <typename Io>
__device__ bool RowBad(const FusedGdnDecodeParams& p, int64_t row, int thread, int threads) {
  const Io* mixed = static_cast<const Io*>(p.mixed_qkv) + row * p.mixed_stride;
  const Io* z = static_cast<const Io*>(p.z) + row * p.z_stride;
  const int heads = p.heads.value_heads, mixed_pieces = (2 * p.heads.key_heads + heads) * kDim / 8;
  bool bad = false;
#pragma unroll 4
  for (int i = thread; i < mixed_pieces; i += threads) {
    bad |= NonFinite<Io>(LoadStreaming(mixed + i * 8));
  }
#pragma unroll 4
  for (int i = thread; p.z != nullptr && i < heads * kDim / 8; i += threads) {
    bad |= NonFinite<Io>(LoadStreaming(z + i * 8));
  }
  for (int i = thread; i < heads; i += threads) {
    const float2 gates = LoadGates<Io>(p, row, i);
    bad |= !isfinite(gates.x) || !isfinite(gates.y);
  }
  return bad;
}

// Convolution, gates and check of one work after the other.
template <typename Io>
class InputWarps {
 public:
  // Before what precedes on the stream has ended.
  __device__ InputWarps(const FusedGdnDecodeParams& p, const Work& first)
      : p_(p), thread_(threadIdx.x - kInputWarp * 32), group_(GroupOf(p)) {
    LoadWeights(first.key_head);
  }

  template <typename State>
  __device__ void Run(const Work& first, Shared<State>& shared) {
    Cursor at{2};
    WorkList<State> works(p_, shared);
    if (!first.pad()) Load(first);
    Arrive(shared.begun);
    bool begun = true;
    while (const Work* work = works.Next()) {
      const bool pad = work->pad();
      if (!pad && !begun) {
        LoadWeights(work->key_head);
        Load(*work);
      }
      begun = false;
      works.WaitLoaded();
      if (!pad) {
        LoadWindows(work->has_state, works.template Window<Io>((2 + group_) * kDim));
        CheckShare(work->row);
      }
      Wait(shared.consumed[at.index], at.parity ^ 1);
      if (!pad) Fill(shared.items[at.index]);
      Arrive(shared.ready[at.index]);
      at.Next();
      works.Over();
    }
  }

 private:
  static constexpr int kPairs = (2 + kMaxGroup) * kDim / 2 / kInputThreads;  // of a thread

  // The thread's i-th pair of channels in the window.
  __device__ int PairOf(int i) const { return thread_ + i * kInputThreads; }
  __device__ bool Has(int i) const { return PairOf(i) < (2 + group_) * kDim / 2; }

  __device__ void LoadWeights(int key_head) {
    const Channels channels(p_, key_head);
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      if (!Has(i)) continue;
      const int part = min(PairOf(i) / (kDim / 2), 2);
      weights_[i] =
          LoadConvWeights(p_, channels.Begin(part) + PairOf(i) * 2 - Channels::Place(part));
    }
    if (p_.g != nullptr || thread_ >= group_) return;
    a_log_ = __ldg(p_.a_log + key_head * group_ + thread_);
    dt_bias_ = __ldg(p_.dt_bias + key_head * group_ + thread_);
  }

  // From global memory, while the window is on its way.
  __device__ void Load(const Work& work) {
    const int head = work.key_head * group_;
    z_ = {};
    if (p_.z != nullptr && thread_ < group_ * (kDim / 8)) {
      z_ = LoadStreaming(static_cast<const Io*>(p_.z) + work.row * p_.z_stride + head * kDim +
                         thread_ * 8);
    }
    gates_ = {};
    if (thread_ < group_) gates_ = LoadGates<Io>(p_, work.row, head + thread_);
  }

  // Where the state counts as zero the window is to say so: it becomes the state.
  __device__ void LoadWindows(bool has_state, Io* window) {
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      if (!Has(i)) continue;
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        auto* at = reinterpret_cast<uint32_t*>(window + j * (2 + group_) * kDim) + PairOf(i);
        if (j < kWidth - 1 && !has_state) *at = 0;
        windows_[i][j].bits = *at;
      }
    }
    if (!has_state) AsyncProxyFence();
  }

  // Of the row's input the block checks what it needs anyway, and lets all blocks know.
  __device__ void CheckShare(int64_t row) const {
    bool bad = NonFinite<Io>(z_) || !isfinite(gates_.x) || !isfinite(gates_.y);
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      if (Has(i)) bad |= NonFinite<Io>(windows_[i][kWidth - 1].bits);
    }
    bad = NamedBarrierOr(1, kInputThreads, bad);
    if (thread_ != 0) return;
    if (bad) {
      atomicOr(p_.faults + row, kFaultNonFinite);
    } else {
      Finite(p_, row).Add();
    }
  }

  __device__ void Fill(Item& item) const {
    if (thread_ < group_) item.gates[thread_] = MakeGates(p_, gates_, a_log_, dt_bias_);
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      if (!Has(i)) continue;
      const float2 y = Convolve(p_, weights_[i], windows_[i]);
      reinterpret_cast<float2*>(item.qkv)[PairOf(i)] = y;
      if (PairOf(i) >= kDim) continue;  // v; q and k have whole warps
      const float square = WarpSum(fmaf(y.x, y.x, y.y * y.y));
      if (PairOf(i) % 32 == 0) item.squares[PairOf(i) / 32] = square;
    }
  }

  const FusedGdnDecodeParams& p_;
  int thread_;
  int group_;
  ConvWeights weights_[kPairs];
  Pair<Io> windows_[kPairs][kWidth];
  uint4 z_;
  float2 gates_;
  float a_log_ = 0.0f;
  float dt_bias_ = 0.0f;
};

template <typename Io>
__device__ void LoadWindow(const FusedGdnDecodeParams& p, const Work& work, Io* window,
                           uint32_t loaded, uint64_t policy) {
  if (work.pad()) return BarrierArrive(loaded);
  const Channels channels(p, work.key_head);
  const int taps = work.has_state ? kWidth : 1;
  BarrierArriveExpect(loaded, taps * channels.count() * sizeof(Io));
  for (int part = 0; part < 3; ++part) {
    const int channel = channels.Begin(part);
    const unsigned bytes = channels.Count(part) * sizeof(Io);
    for (int j = kWidth - taps; j < kWidth; ++j) {
      const Io* from = j == kWidth - 1 ? static_cast<const Io*>(p.mixed_qkv) +
                                             work.row * p.mixed_stride + channel
                                       : ConvState<Io>(p, work, j, channel);
      CopyBulk(SharedAddress(window + j * channels.count() + Channels::Place(part)), from, bytes,
               loaded, policy);
    }
  }
}

// Takes works, of which the first two go by the block's number, and loads their states.
template <typename Io, typename State>
__device__ void LoadThread(const FusedGdnDecodeParams& p, Work work, Work second,
                           Shared<State>& shared) {
  const int group = GroupOf(p);
  const unsigned count = static_cast<unsigned>(p.rows.count) * p.heads.key_heads;
  WorkList<State> works(p, shared);
  const uint64_t policy = KeepInL2();
  Cursor stage{Shared<State>::kStages};
  for (bool begun = true;; works.Advance()) {
    works.Put(work);
    if (work.row < 0) return;
    LoadWindow(p, work, works.template Window<Io>((2 + group) * kDim), works.loaded(), policy);
    Wait(shared.begun, 0);  // small loads would queue behind these
    for (int i = 0; i < group * kParts; ++i, stage.Next()) {
      const uint32_t full = SharedAddress(&shared.full[stage.index]);
      Wait(shared.free[stage.index], stage.parity ^ 1);
      if (!work.pad() && work.has_state) {
        BarrierArriveExpect(full, Part<State>::kBytes);
        CopyBulk(SharedAddress(&shared.parts[stage.index]), StatesOf<State>(p, work) + i,
                 Part<State>::kBytes, full, policy);
      } else {
        BarrierArrive(full);
      }
    }
    if (begun) {
      work = second;
      begun = false;
      continue;
    }
    const unsigned taken = atomicAdd(p.faults, kTaken) / kTaken;
    // Every work but a block's first is followed by one such addition: this was the last of all.
    if (taken + 1 == count - gridDim.x) atomicAnd(p.faults, kFaultBits);
    work = WorkOf(p, 2 * gridDim.x + taken);
  }
}

// Sends the states of one work after the other back, if the whole row's input is finite.
template <typename Io>
class StoreWarp {
 public:
  __device__ explicit StoreWarp(const FusedGdnDecodeParams& p) : p_(p) {}

  template <typename State>
  __device__ void Run(Shared<State>& shared) {
    const int group = GroupOf(p_);
    WorkList<State> works(p_, shared);
    const uint64_t policy = KeepInL2();
    Cursor stage{Shared<State>::kStages}, left{Shared<State>::kStages};
    int leaving = 0;
    while (const Work* work = works.Next()) {
      works.WaitLoaded();
      bool keep = !work->pad();
      for (int i = 0; i < group * kParts; ++i, stage.Next()) {
        Wait(shared.done[stage.index], stage.parity);
        // Only here this block is sure to have said what it has found.
        if (i == 0 && keep) keep = Hear(work->row);
        if (lane_ == 0) {
          if (keep) {
            if (i == 0) StoreWindow(*work, works.template Window<Io>((2 + group) * kDim), policy);
            StoreBulk(StatesOf<State>(p_, *work) + i, SharedAddress(&shared.parts[stage.index]),
                      Part<State>::kBytes, policy);
          }
          StoreBulkCommit();
          StoreBulkWaitRead<Shared<State>::kLeaving>();
          if (++leaving > Shared<State>::kLeaving) {
            --leaving;
            Arrive(shared.free[left.index]);
            left.Next();
          }
        }
        __syncwarp();
      }
      works.Over();
    }
    if (lane_ == 0) StoreBulkWait();
  }

 private:
  // Whether the row's input is finite, from what the blocks of all key heads have found. They are
  // not waited for long: they may not have begun.
  __device__ bool Hear(int64_t row) const {
    const unsigned blocks = p_.heads.key_heads;
    bool finite = false, bad = false;
    for (int i = 0; i < kLooks && !finite && !bad; ++i) {
      finite = __any_sync(~0u, Finite(p_, row).Load() == blocks);
      bad = __any_sync(~0u, (LoadRelaxed(p_.faults + row) & kFaultNonFinite) != 0);
    }
    if (!finite && !bad) {
      bad = __any_sync(~0u, RowBad<Io>(p_, row, lane_, 32));
      if (bad && lane_ == 0) atomicOr(p_.faults + row, kFaultNonFinite);
    }
    if (lane_ == 0 && row == 0) __threadfence();  // its counters are not in one word
    if (lane_ == 0 && Heard(p_, row).Add() == blocks) {
      Finite(p_, row).Clear();
      Heard(p_, row).Clear();
    }
    return !bad;
  }

  __device__ void StoreWindow(const Work& work, const Io* window, uint64_t policy) const {
    const Channels channels(p_, work.key_head);
    for (int part = 0; part < 3; ++part) {
      for (int j = 0; j < kWidth - 1; ++j) {
        StoreBulk(ConvState<Io>(p_, work, j, channels.Begin(part)),
                  SharedAddress(window + (j + 1) * channels.count() + Channels::Place(part)),
                  channels.Count(part) * sizeof(Io), policy);
      }
    }
  }

  const FusedGdnDecodeParams& p_;
  int lane_ = threadIdx.x % 32;
};

template <typename State>
__device__ void StepWarps(const FusedGdnDecodeParams& p, Shared<State>& shared) {
  const int group = GroupOf(p);
  const int part = threadIdx.x / (kThreads / kParts);
  WorkList<State> works(p, shared);
  Cursor head{Shared<State>::kStages / kParts}, at{2}, o{2};
  StateTile<State, kDim / kRowsAtOnce> tile;
  while (const Work* work = works.Next()) {
    const Item& item = shared.items[at.index];
    const bool pad = work->pad(), has_state = work->has_state;
    Wait(shared.ready[at.index], at.parity);
    for (int i = 0; i < group; ++i, head.Next(), o.Next()) {
      State* state = shared.parts[head.index * kParts].state;
      Wait(shared.full[head.index * kParts + part], head.parity);
      Wait(shared.o_free[o.index], o.parity ^ 1);
      if (!pad) {
        if (has_state) {
          tile.LoadShared(state);
        } else {
          tile.Zero();
        }
        tile.Step(
            p, {item.qkv, item.qkv + kDim, item.qkv + (2 + i) * kDim, item.squares, item.gates[i]},
            [&](int v, float x) { shared.o[o.index][v] = x; });
        tile.StoreShared(state);
        AsyncProxyFence();
      }
      Arrive(shared.done[head.index * kParts + part]);
      Arrive(shared.o_full[o.index]);
    }
    Arrive(shared.consumed[at.index]);
    at.Next();
    works.Over();
  }
}

template <typename Io, typename State>
__device__ void NormWarp(const FusedGdnDecodeParams& p, Shared<State>& shared) {
  const int group = GroupOf(p);
  const int lane = threadIdx.x % 32;
  float4 weight = {};
  if (p.z != nullptr) weight = __ldg(reinterpret_cast<const float4*>(p.norm_weight) + lane);
  WorkList<State> works(p, shared);
  Cursor o{2};
  while (const Work* work = works.Next()) {
    bool finite = true;
    for (int i = 0; i < group; ++i, o.Next()) {
      const int channel = (work->key_head * group + i) * kDim + lane * 4;
      Io* to = static_cast<Io*>(p.o) + work->row * p.o_stride + channel;
      Quad<Io> z = {};
      if (p.z != nullptr) {
        z = *reinterpret_cast<const Quad<Io>*>(static_cast<const Io*>(p.z) +
                                               work->row * p.z_stride + channel);
      }
      Wait(shared.o_full[o.index], o.parity);
      const float4 x = reinterpret_cast<const float4*>(shared.o[o.index])[lane];
      Arrive(shared.o_free[o.index]);
      if (work->pad()) {
        *reinterpret_cast<Quad<Io>*>(to) = {};
      } else {
        finite &= NormAndStore(p, x, weight, z, to);
      }
    }
    if (!finite) atomicOr(p.faults + work->row, kFaultOverflow);
    works.Over();
  }
}

template <int kCount>
__device__ void Init(uint64_t (&barriers)[kCount], unsigned arrivals) {
  for (uint64_t& barrier : barriers) BarrierInit(SharedAddress(&barrier), arrivals);
}

template <typename State>
__device__ void InitBarriers(Shared<State>& shared) {
  if (threadIdx.x == 0) {
    Init(shared.taken, 1);
    Init(shared.loaded, 1);
    Init(shared.over, kThreads + kInputThreads + 32 + 32);
    Init(shared.full, 1);
    Init(shared.done, kThreads / kParts);
    Init(shared.free, 1);
    BarrierInit(SharedAddress(&shared.begun), kInputThreads);
    Init(shared.ready, kInputThreads);
    Init(shared.consumed, kThreads);
    Init(shared.o_full, kThreads);
    Init(shared.o_free, 32);
    BarrierInitFence();
  }
  __syncthreads();
}

__device__ void Begin() {
  GridDependencyWait();
  GridDependencyLaunch();
}

// Grid: not more blocks than works.
template <typename Io, typename State>
__global__ void __launch_bounds__(kBlockThreads, 1)
    StreamKernel(const __grid_constant__ FusedGdnDecodeParams p) {
  extern __shared__ __align__(128) unsigned char memory[];
  Shared<State>& shared = *reinterpret_cast<Shared<State>*>(memory);
  const int warp = threadIdx.x / 32;
  const bool first_lane = threadIdx.x % 32 == 0;
  Work first = {}, second = {};
  if (warp >= kInputWarp && warp <= kLoadWarp) {
    first = WorkOf(p, blockIdx.x);
    second = WorkOf(p, blockIdx.x + gridDim.x);
  }
  if (warp == kLoadWarp && first_lane && !first.pad() && first.has_state) {
    PrefetchBulk(StatesOf<State>(p, first), kParts * Part<State>::kBytes);
  }
  InitBarriers(shared);
  if (warp < kWarps) {
    Begin();
    StepWarps(p, shared);
  } else if (warp < kLoadWarp) {
    InputWarps<Io> input(p, first);
    Begin();
    input.Run(first, shared);
  } else if (warp == kLoadWarp) {
    Begin();
    if (first_lane) LoadThread<Io>(p, first, second, shared);
  } else if (warp == kStoreWarp) {
    Begin();
    StoreWarp<Io>(p).Run(shared);
  } else {
    Begin();
    NormWarp<Io>(p, shared);
  }
}

int Processors() {
  int device = 0, count = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
  return count;
}

template <typename Io, typename State>
cudaError_t Launch(const FusedGdnDecodeParams& p, cudaStream_t stream) {
  constexpr int kBytes = sizeof(Shared<State>);
  static const cudaError_t allowed = cudaFuncSetAttribute(
      StreamKernel<Io, State>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  if (allowed != cudaSuccess) return allowed;
  static const int processors = Processors();
  cudaLaunchAttribute attribute;
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim =
      static_cast<unsigned>(std::min<int64_t>(p.rows.count * p.heads.key_heads, processors));
  config.blockDim = kBlockThreads;
  config.dynamicSmemBytes = kBytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = 1;
  return cudaLaunchKernelEx(&config, StreamKernel<Io, State>, p);
}

}  // namespace

cudaError_t LaunchStream(const FusedGdnDecodeParams& p, cudaStream_t stream) {
  const bool fp32 = p.ssm.type == DType::kFp32;
  if (p.io == DType::kBf16) {
    return fp32 ? Launch<__nv_bfloat16, float>(p, stream)
                : Launch<__nv_bfloat16, __nv_bfloat16>(p, stream);
  }
  return fp32 ? Launch<__half, float>(p, stream) : Launch<__half, __nv_bfloat16>(p, stream);
}

}  // namespace gdn::cuda::decode
