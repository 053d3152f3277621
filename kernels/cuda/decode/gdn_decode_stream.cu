// Many rows: the blocks, one to a processor, take the rows of the key heads as they come to them.
// The copy engine moves the states of the value heads through a ring in shared memory, ahead of and
// behind the warps that update them, so that device memory never waits. What it reads stays in L2
// until it is written there again: as ordinary lines states cost up to 4 % more. Nobody else
// touches the conv state of the heads of a row that a block has taken.
#include <algorithm>

#include "kernels/cuda/decode/gdn_decode_input.cuh"
#include "kernels/cuda/decode/gdn_decode_kernels.h"
#include "kernels/cuda/decode/gdn_decode_stream.cuh"

namespace gdn::cuda::decode {
namespace {

__device__ void Begin() {
  GridDependencyWait();
  GridDependencyLaunch();
}

// By a warp: each lane that finds one copies a tap of a run. One after the other would take longer
// than all else that the first states wait for.
template <typename Io>
__device__ void LoadWindow(const FusedGdnDecodeParams& p, const Work& work, Io* window,
                           uint32_t loaded, uint64_t policy) {
  const int lane = threadIdx.x % 32, part = lane / kWidth, j = lane % kWidth;
  const Channels channels(p, work.key_head);
  const int taps = work.pad() ? 0 : work.has_state ? kWidth : 1;
  if (lane == 0) BarrierArriveExpect(loaded, taps * channels.count() * sizeof(Io));
  __syncwarp();
  if (part >= 3 || j < kWidth - taps) return;
  const int channel = channels.Begin(part);
  const Io* from = j == kWidth - 1
                       ? static_cast<const Io*>(p.mixed_qkv) + work.row * p.mixed_stride + channel
                       : ConvState<Io>(p, work, j, channel);
  CopyBulk(SharedAddress(window + j * channels.count() + Channels::Place(part)), from,
           channels.Count(part) * sizeof(Io), loaded, policy);
}

// Brings the next part of a state to its place; null: there is nothing to bring.
template <typename State>
__device__ void LoadPart(const Part<State>* from, Shared<State>& shared, Cursor& stage,
                         uint64_t policy) {
  const uint32_t full = SharedAddress(&shared.full[stage.index]);
  Wait(shared.free[stage.index], stage.parity ^ 1);
  if (from != nullptr) {
    BarrierArriveExpect(full, Part<State>::kBytes);
    CopyBulk(SharedAddress(&shared.parts[stage.index]), from, Part<State>::kBytes, full, policy);
  } else {
    BarrierArrive(full);
  }
  stage.Next();
}

// By a warp: the next work that no block has taken.
__device__ Work Take(const FusedGdnDecodeParams& p) {
  const unsigned count = static_cast<unsigned>(p.rows.count) * p.heads.key_heads;
  unsigned taken = 0;
  if (threadIdx.x % 32 == 0) {
    taken = atomicAdd(p.faults, kTaken) / kTaken;
    // Every work but a block's first is followed by one such addition: this was the last of all.
    if (taken + 1 == count - gridDim.x) atomicAnd(p.faults, kFaultBits);
  }
  return WorkOf(p, 2 * gridDim.x + __shfl_sync(~0u, taken, 0));
}

// Takes works, of which the first two go by the block's number, and loads their states.
template <typename Io, typename State>
__device__ void LoadWarp(const FusedGdnDecodeParams& p, Work work, Work second,
                         Shared<State>& shared) {
  const int group = GroupOf(p);
  const bool first_lane = threadIdx.x % 32 == 0;
  WorkList<State> works(p, shared);
  const uint64_t policy = KeepInL2();
  Cursor stage{Shared<State>::kStages};
  if (first_lane) works.Put(work);
  Begin();
  for (bool begun = true; work.row >= 0; begun = false) {
    __syncwarp();  // the work's place is free
    LoadWindow(p, work, works.template Window<Io>((2 + group) * kDim), works.loaded(), policy);
    __syncwarp();
    if (first_lane) {
      Wait(shared.begun, 0);  // small loads would queue behind these
      const bool loads = !work.pad() && work.has_state;
      for (int i = 0; i < group * kParts; ++i) {
        LoadPart(loads ? StatesOf<State>(p, work) + i : nullptr, shared, stage, policy);
      }
    }
    work = begun ? second : Take(p);
    works.Advance();
    if (first_lane) works.Put(work);
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
      const int64_t row = work->row;
      const bool pad = work->pad();
      bool keep = !pad;
      for (int i = 0; i < group * kParts; ++i, stage.Next()) {
        Wait(shared.done[stage.index], stage.parity);
        // Only here this block is sure to have said what it has found.
        if (i == 0 && keep) keep = Hear(row);
        if (lane_ == 0) {
          if (keep) {
            if (i == 0) StoreWindow(*work, works.template Window<Io>((2 + group) * kDim), policy);
            StoreBulk(StatesOf<State>(p_, *work) + i, SharedAddress(&shared.parts[stage.index]),
                      Part<State>::kBytes, policy);
          }
          StoreBulkCommit();
          StoreBulkWaitRead<Shared<State>::kLeaving>();
        }
        __syncwarp();  // once a stage is free, a lane that still waits for it waits for another
                       // round
        if (++leaving <= Shared<State>::kLeaving) continue;
        --leaving;
        if (lane_ == 0) Arrive(shared.free[left.index]);
        left.Next();
      }
      if (lane_ == 0 && !pad) Forget(row);
      works.Over();
    }
    if (lane_ == 0) StoreBulkWait();
  }

 private:
  // Whether the row's input is finite, from what the blocks of all key heads have found. They are
  // not waited for long: they may not have begun.
  __device__ bool Hear(int64_t row) const {
    const unsigned blocks = p_.heads.key_heads;
    for (int i = 0; i < kLooks; ++i) {
      const unsigned found = Finite(p_, row).Load(), faults = LoadRelaxed(p_.faults + row);
      if (__any_sync(~0u, (faults & kFaultNonFinite) != 0)) return false;
      if (__any_sync(~0u, found == blocks)) return true;
    }
    const bool bad = __any_sync(~0u, RowBad<Io>(p_, row, lane_, 32));
    if (bad && lane_ == 0) atomicOr(p_.faults + row, kFaultNonFinite);
    return !bad;
  }

  // The last block that has heard of the row clears what was counted.
  __device__ void Forget(int64_t row) const {
    if (row == 0) __threadfence();  // its counters are not in one word
    if (Heard(p_, row).Add() < p_.heads.key_heads) return;
    Finite(p_, row).Clear();
    Heard(p_, row).Clear();
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
  // Into L2, while what precedes ends; that is not yet to read. To bring more of them is slower.
  if (warp == kLoadWarp && first_lane && !first.pad() && first.has_state) {
    PrefetchBulk(StatesOf<State>(p, first), GroupOf(p) * kParts * Part<State>::kBytes);
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
    LoadWarp<Io>(p, first, second, shared);
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
