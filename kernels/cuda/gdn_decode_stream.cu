// Many rows: every block goes through the states of one key head, row after row. The copy engine
// moves them through a ring in shared memory, ahead of and behind the warps that update them, so
// that device memory never waits. Nobody else touches the conv state of the block's heads.
#include <algorithm>

#include "kernels/cuda/gdn_decode.cuh"
#include "kernels/cuda/gdn_decode_kernels.h"

namespace gdn::cuda::decode {
namespace {

// The roles of the warps.
constexpr int kInputWarp = kWarps;  // six: convolution, gates and the check
constexpr int kInputWarps = 6;
constexpr int kCopyWarp = kInputWarp + kInputWarps;  // one thread: states in and out
constexpr int kNormWarp = kCopyWarp + 1;             // o out
constexpr int kInputThreads = kInputWarps * 32;
constexpr int kBlockThreads = (kNormWarp + 1) * 32;

constexpr int kMaxGroup = 8;                // R
constexpr int kRing = 3 * kDim * kDim * 4;  // bytes

// What a row brings to the value heads of the key head.
struct alignas(16) Item {
  float qkv[(2 + kMaxGroup) * kDim];  // q | k | v of each head
  float squares[4];
  Gates gates[kMaxGroup];
  bool pad;
  bool has_state;
  bool bad;  // NaN or infinity in the row's input
};

template <typename State>
struct Shared {
  static constexpr int kStages = kRing / (kDim * kDim * sizeof(State));

  alignas(128) State state[kStages][kDim * kDim];
  alignas(16) Item items[2];
  alignas(16) float o[2][kDim];
  bool keep[kStages];  // whether the stage goes back to the pool
  alignas(8) uint64_t full[kStages];
  uint64_t done[kStages];
  uint64_t ready[2];
  uint64_t consumed[2];
  uint64_t o_full[2];
  uint64_t o_free[2];
};

// Where a role stands in a ring of buffers.
template <int kBuffers>
struct Cursor {
  int index = 0;
  unsigned parity = 0;  // of the round

  __device__ void Next() {
    if (++index < kBuffers) return;
    index = 0;
    parity ^= 1;
  }
};

// The block's rows: all that have its place in the grid.
struct Walk {
  int key_head;
  int group;
  int64_t first;
  int64_t step;

  __device__ explicit Walk(const FusedGdnDecodeParams& p)
      : key_head(blockIdx.x % p.heads.key_heads),
        group(p.heads.value_heads / p.heads.key_heads),
        first(blockIdx.x / p.heads.key_heads),
        step(gridDim.x / p.heads.key_heads) {}
  __device__ int head(int i) const { return key_head * group + i; }
};

// Convolution, gates and check of one row after the other. All loads of a row are in flight at
// once, before its place in shared memory is free.
template <typename Io>
class InputWarps {
 public:
  __device__ InputWarps(const FusedGdnDecodeParams& p, const Walk& walk)
      : p_(p),
        walk_(walk),
        thread_(threadIdx.x - kInputWarp * 32),
        conv_dim_((2 * p.heads.key_heads + p.heads.value_heads) * kDim),
        mixed_pieces_(conv_dim_ / 8),
        pieces_(mixed_pieces_ + (p.z == nullptr ? 0 : p.heads.value_heads * (kDim / 8))) {}

  template <typename State>
  __device__ void Run(Shared<State>& shared) {
    Cursor<2> at;
    int64_t slot = 0;
    bool has_state = false;
    LoadRow(walk_.first, slot, has_state);
    for (int64_t row = walk_.first; row < p_.rows.count; row += walk_.step, at.Next()) {
      Item& item = shared.items[at.index];
      const bool pad = slot < 0;
      if (!pad) Load(row, slot, has_state);
      int64_t next_slot = 0;
      bool next_has_state = false;
      LoadRow(row + walk_.step, next_slot, next_has_state);
      BarrierWait(SharedAddress(&shared.consumed[at.index]), at.parity ^ 1);
      if (!pad) Fill(row, slot, has_state, item);
      if (thread_ == 0) {
        item.pad = pad;
        item.has_state = has_state;
      }
      __syncwarp();
      if (thread_ % 32 == 0) BarrierArrive(SharedAddress(&shared.ready[at.index]));
      slot = next_slot;
      has_state = next_has_state;
    }
  }

 private:
  static constexpr int kPieces = 8;  // of a thread, loaded early
  static constexpr int kPairs = 2;

  __device__ void LoadRow(int64_t row, int64_t& slot, bool& has_state) const {
    if (row >= p_.rows.count) return;
    slot = p_.rows.slot(row);
    has_state = p_.rows.has_state(row);
  }

  __device__ void Load(int64_t row, int64_t slot, bool has_state) {
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      LoadPair(thread_ + i * kInputThreads, row, slot, has_state, window_[i]);
    }
#pragma unroll
    for (int i = 0; i < kPieces; ++i) early_[i] = Piece(row, thread_ + i * kInputThreads);
    all_gates_ = LoadGates<Io>(p_, row, thread_);
    if (thread_ < walk_.group) gates_ = LoadGates<Io>(p_, row, walk_.head(thread_));
  }

  __device__ void Fill(int64_t row, int64_t slot, bool has_state, Item& item) {
    const bool bad = NamedBarrierOr(1, kInputThreads, Bad(row));
    if (thread_ == 0) {
      item.bad = bad;
      if (bad) atomicOr(p_.faults + row, kFaultNonFinite);
    }
    if (thread_ < walk_.group) {
      const int head = walk_.head(thread_);
      const bool given = p_.g != nullptr;
      item.gates[thread_] = MakeGates(p_, gates_, given ? 0.0f : __ldg(p_.a_log + head),
                                      given ? 0.0f : __ldg(p_.dt_bias + head));
    }
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      StorePair(thread_ + i * kInputThreads, slot, bad, window_[i], item);
    }
    for (int pair = thread_ + kPairs * kInputThreads; pair < Pairs(); pair += kInputThreads) {
      Pair<Io> window[kWidth] = {};
      LoadPair(pair, row, slot, has_state, window);
      StorePair(pair, slot, bad, window, item);
    }
  }

  // Whether what of the row's whole input falls to this thread has NaN or infinity.
  __device__ bool Bad(int64_t row) const {
    bool bad = !isfinite(all_gates_.x) || !isfinite(all_gates_.y);
#pragma unroll
    for (int i = 0; i < kPieces; ++i) bad |= NonFinite<Io>(early_[i]);
    for (int i = thread_ + kPieces * kInputThreads; i < pieces_; i += kInputThreads) {
      bad |= NonFinite<Io>(Piece(row, i));
    }
    for (int i = thread_ + kInputThreads; i < p_.heads.value_heads; i += kInputThreads) {
      const float2 gates = LoadGates<Io>(p_, row, i);
      bad |= !isfinite(gates.x) || !isfinite(gates.y);
    }
    return bad;
  }

  __device__ uint4 Piece(int64_t row, int i) const {
    if (i >= pieces_) return {};
    const Io* x = i < mixed_pieces_
                      ? static_cast<const Io*>(p_.mixed_qkv) + row * p_.mixed_stride
                      : static_cast<const Io*>(p_.z) + row * p_.z_stride - mixed_pieces_ * 8;
    return LoadStreaming(reinterpret_cast<const uint4*>(x) + i);
  }

  // Pairs of channels: of q, k, and v of the heads of the group, in this order.
  __device__ int Pairs() const { return (2 + walk_.group) * kDim / 2; }
  __device__ int Channel(int pair) const {
    const int part = pair / (kDim / 2);
    const int first = part == 0   ? walk_.key_head
                      : part == 1 ? p_.heads.key_heads + walk_.key_head
                                  : 2 * p_.heads.key_heads + walk_.head(part - 2);
    return first * kDim + pair % (kDim / 2) * 2;
  }
  __device__ uint32_t* ConvState(int pair, int64_t slot, int tap) const {
    Io* state = static_cast<Io*>(p_.conv.data) + slot * p_.conv.slot_stride;
    return reinterpret_cast<uint32_t*>(state + tap * conv_dim_ + Channel(pair));
  }

  __device__ void LoadPair(int pair, int64_t row, int64_t slot, bool has_state,
                           Pair<Io> (&window)[kWidth]) const {
    if (pair >= Pairs()) return;
    const Io* x = static_cast<const Io*>(p_.mixed_qkv) + row * p_.mixed_stride + Channel(pair);
    window[kWidth - 1].bits = __ldg(reinterpret_cast<const uint32_t*>(x));
#pragma unroll
    for (int j = 0; j < kWidth - 1; ++j) {
      window[j].bits = has_state ? *ConvState(pair, slot, j) : 0;
    }
  }

  __device__ void StorePair(int pair, int64_t slot, bool bad, const Pair<Io> (&window)[kWidth],
                            Item& item) const {
    if (pair >= Pairs()) return;
    const float2 y = Convolve(p_, LoadConvWeights(p_, Channel(pair)), window);
    reinterpret_cast<float2*>(item.qkv)[pair] = y;
    if (pair < kDim) {  // of q or k: whole warps
      const float square = WarpSum(fmaf(y.x, y.x, y.y * y.y));
      if (pair % 32 == 0) item.squares[pair / 32] = square;
    }
    if (bad) return;
#pragma unroll
    for (int j = 0; j < kWidth - 1; ++j) *ConvState(pair, slot, j) = window[j + 1].bits;
  }

  const FusedGdnDecodeParams& p_;
  const Walk& walk_;
  int thread_;
  int conv_dim_;
  int mixed_pieces_;
  int pieces_;
  Pair<Io> window_[kPairs][kWidth];
  uint4 early_[kPieces];
  float2 all_gates_;
  float2 gates_;
};

// The states of the block's rows, in the order in which they are worked on.
template <typename State>
class CopyThread {
 public:
  __device__ CopyThread(const FusedGdnDecodeParams& p, const Walk& walk, Shared<State>& shared)
      : p_(p), walk_(walk), shared_(shared) {}

  __device__ void Run() {
    Place next = {walk_.first, 0};
    for (int i = 0; i < Shared<State>::kStages; ++i) Load(i, next);
    Cursor<Shared<State>::kStages> at;
    for (Place place = {walk_.first, 0}; place.row < p_.rows.count; Advance(place), at.Next()) {
      BarrierWait(SharedAddress(&shared_.done[at.index]), at.parity);
      if (shared_.keep[at.index]) {
        StoreBulk(Slot(place), SharedAddress(shared_.state[at.index]), kBytes);
        StoreBulkCommit();
        StoreBulkWaitRead();
      }
      Load(at.index, next);
    }
    StoreBulkWait();
  }

 private:
  static constexpr unsigned kBytes = kDim * kDim * sizeof(State);

  struct Place {
    int64_t row;
    int head;  // in the group
  };

  __device__ void Advance(Place& place) const {
    if (++place.head < walk_.group) return;
    place = {place.row + walk_.step, 0};
  }

  __device__ State* Slot(const Place& place) const {
    return static_cast<State*>(p_.ssm.data) + p_.rows.slot(place.row) * p_.ssm.slot_stride +
           int64_t{walk_.head(place.head)} * kDim * kDim;
  }

  // The state at `place` to the stage, and `place` to the next one.
  __device__ void Load(int stage, Place& place) {
    if (place.row >= p_.rows.count) return;
    const uint32_t full = SharedAddress(&shared_.full[stage]);
    if (p_.rows.slot(place.row) >= 0 && p_.rows.has_state(place.row)) {
      BarrierArriveExpect(full, kBytes);
      CopyBulk(SharedAddress(shared_.state[stage]), Slot(place), kBytes, full);
    } else {
      BarrierArrive(full);
    }
    Advance(place);
  }

  const FusedGdnDecodeParams& p_;
  const Walk& walk_;
  Shared<State>& shared_;
};

template <typename State>
__device__ void StepWarps(const FusedGdnDecodeParams& p, const Walk& walk, Shared<State>& shared) {
  const bool leader = threadIdx.x % 32 == 0;
  Cursor<Shared<State>::kStages> stage;
  Cursor<2> at, o;
  StateTile<State, kDim / kRowsAtOnce> tile;
  for (int64_t row = walk.first; row < p.rows.count; row += walk.step, at.Next()) {
    const Item& item = shared.items[at.index];
    BarrierWait(SharedAddress(&shared.ready[at.index]), at.parity);
    for (int i = 0; i < walk.group; ++i, stage.Next(), o.Next()) {
      BarrierWait(SharedAddress(&shared.full[stage.index]), stage.parity);
      BarrierWait(SharedAddress(&shared.o_free[o.index]), o.parity ^ 1);
      if (!item.pad) {
        if (item.has_state) {
          tile.LoadShared(shared.state[stage.index]);
        } else {
          tile.Zero();
        }
        tile.Step(
            p, {item.qkv, item.qkv + kDim, item.qkv + (2 + i) * kDim, item.squares, item.gates[i]},
            [&](int v, float x) { shared.o[o.index][v] = x; });
        tile.StoreShared(shared.state[stage.index]);
        AsyncProxyFence();
      }
      if (threadIdx.x == 0) shared.keep[stage.index] = !item.pad && !item.bad;
      __syncwarp();
      if (leader) {
        BarrierArrive(SharedAddress(&shared.o_full[o.index]));
        BarrierArrive(SharedAddress(&shared.done[stage.index]));
      }
    }
    if (leader) BarrierArrive(SharedAddress(&shared.consumed[at.index]));
  }
}

template <typename Io, typename State>
__device__ void NormWarp(const FusedGdnDecodeParams& p, const Walk& walk, Shared<State>& shared) {
  const int lane = threadIdx.x % 32;
  float4 weight = {};
  if (p.z != nullptr) weight = __ldg(reinterpret_cast<const float4*>(p.norm_weight) + lane);
  Cursor<2> o;
  for (int64_t row = walk.first; row < p.rows.count; row += walk.step) {
    const bool pad = p.rows.slot(row) < 0;
    bool finite = true;
    for (int i = 0; i < walk.group; ++i, o.Next()) {
      const int channel = walk.head(i) * kDim + lane * 4;
      Io* to = static_cast<Io*>(p.o) + row * p.o_stride + channel;
      Quad<Io> z = {};
      if (p.z != nullptr) {
        z = *reinterpret_cast<const Quad<Io>*>(static_cast<const Io*>(p.z) + row * p.z_stride +
                                               channel);
      }
      BarrierWait(SharedAddress(&shared.o_full[o.index]), o.parity);
      const float4 x = reinterpret_cast<const float4*>(shared.o[o.index])[lane];
      __syncwarp();
      if (lane == 0) BarrierArrive(SharedAddress(&shared.o_free[o.index]));
      if (pad) {
        *reinterpret_cast<Quad<Io>*>(to) = {};
      } else {
        finite &= NormAndStore(p, x, weight, z, to);
      }
    }
    if (!finite) atomicOr(p.faults + row, kFaultOverflow);
  }
}

template <typename State>
__device__ void InitBarriers(Shared<State>& shared) {
  if (threadIdx.x == 0) {
    for (int i = 0; i < Shared<State>::kStages; ++i) {
      BarrierInit(SharedAddress(&shared.full[i]), 1);
      BarrierInit(SharedAddress(&shared.done[i]), kWarps);
    }
    for (int i = 0; i < 2; ++i) {
      BarrierInit(SharedAddress(&shared.ready[i]), kInputWarps);
      BarrierInit(SharedAddress(&shared.consumed[i]), kWarps);
      BarrierInit(SharedAddress(&shared.o_full[i]), kWarps);
      BarrierInit(SharedAddress(&shared.o_free[i]), 1);
    }
    BarrierInitFence();
  }
  __syncthreads();
}

// Grid: a multiple of H.
template <typename Io, typename State>
__global__ void __launch_bounds__(kBlockThreads, 1)
    StreamKernel(const __grid_constant__ FusedGdnDecodeParams p) {
  extern __shared__ __align__(128) unsigned char memory[];
  Shared<State>& shared = *reinterpret_cast<Shared<State>*>(memory);
  const Walk walk(p);
  InitBarriers(shared);
  GridDependencyWait();
  GridDependencyLaunch();
  const int warp = threadIdx.x / 32;
  if (warp < kWarps) {
    StepWarps(p, walk, shared);
  } else if (warp < kCopyWarp) {
    InputWarps<Io>(p, walk).Run(shared);
  } else if (warp == kCopyWarp) {
    if (threadIdx.x % 32 == 0) CopyThread<State>(p, walk, shared).Run();
  } else {
    NormWarp<Io>(p, walk, shared);
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
  const int64_t rows_at_once = std::max(1, processors / p.heads.key_heads);
  cudaLaunchAttribute attribute;
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = static_cast<unsigned>(std::min(p.rows.count, rows_at_once) * p.heads.key_heads);
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
