// Few rows: one block holds the state of one value head of one row in registers while the row's
// tokens pass. The value heads of a key head share the conv state of q and k, and all heads of a
// row share its check for NaN and infinity: they sit in one cluster, which meets before anything is
// written.
#include "kernels/cuda/decode/gdn_decode.cuh"
#include "kernels/cuda/decode/gdn_decode_kernels.h"

namespace gdn::cuda::decode {
namespace {

constexpr int kGateWarp = 6;  // those before it convolve, two channels a thread
constexpr int kNormWarp = 7;
constexpr int kMaxCluster = 8;

struct Shared {
  float q[kDim];
  float k[kDim];
  float v[kDim];
  float o[kDim];
  float squares[4];  // of q's halves, then k's
  Gates gates;
  uint64_t o_full;  // counts the o of all blocks of the head
};

// A thread's share of the check of a row's whole input: of mixed_qkv and z, the pieces of 16 bytes
// that are as far apart as the cluster has threads. The first ones are loaded early and looked at
// late, so that nothing waits for them.
template <typename Io>
class InputCheck {
 public:
  __device__ explicit InputCheck(const FusedGdnDecodeParams& p) : p_(p) {
    mixed_pieces_ = (2 * p.heads.key_heads + p.heads.value_heads) * (kDim / 8);
    pieces_ = mixed_pieces_ + (p.z == nullptr ? 0 : p.heads.value_heads * (kDim / 8));
    first_ = ClusterRank() * kThreads + threadIdx.x;
    step_ = ClusterSize() * kThreads;
  }

  __device__ void Load(int64_t token) {
#pragma unroll
    for (int i = 0; i < kEarly; ++i) early_[i] = Piece(token, first_ + i * step_);
  }

  // Whether the pieces of `begin`, which was loaded, or of a token up to `end` hold NaN or
  // infinity.
  __device__ bool Bad(int64_t begin, int64_t end) const {
    bool bad = false;
#pragma unroll
    for (int i = 0; i < kEarly; ++i) bad |= NonFinite<Io>(early_[i]);
    for (int i = first_ + kEarly * step_; i < pieces_; i += step_) {
      bad |= NonFinite<Io>(Piece(begin, i));
    }
    for (int64_t t = begin + 1; t < end; ++t) {
      for (int i = first_; i < pieces_; i += step_) bad |= NonFinite<Io>(Piece(t, i));
    }
    return bad;
  }

 private:
  static constexpr int kEarly = 2;

  __device__ uint4 Piece(int64_t token, int i) const {
    if (i >= pieces_) return {};
    const Io* x = i < mixed_pieces_
                      ? static_cast<const Io*>(p_.mixed_qkv) + token * p_.mixed_stride
                      : static_cast<const Io*>(p_.z) + token * p_.z_stride - mixed_pieces_ * 8;
    return __ldg(reinterpret_cast<const uint4*>(x) + i);
  }

  const FusedGdnDecodeParams& p_;
  int mixed_pieces_;
  int pieces_;
  int first_;
  int step_;
  uint4 early_[kEarly];
};

// The gates of a token, by one warp: those of this head to shared memory, and the check of all.
template <typename Io>
class GateWarp {
 public:
  __device__ GateWarp(const FusedGdnDecodeParams& p, int head) : p_(p), head_(head) {
    if (p.g != nullptr) return;
    a_log_ = __ldg(p.a_log + head);
    dt_bias_ = __ldg(p.dt_bias + head);
  }

  __device__ void Load(int64_t token) { own_ = LoadGates<Io>(p_, token, head_); }
  __device__ void LoadAll(int64_t token) {
#pragma unroll
    for (int i = 0; i < kEarly; ++i) {
      early_[i] = LoadGates<Io>(p_, token, threadIdx.x % 32 + i * 32);
    }
  }

  __device__ void Store(Shared& shared) const {
    const Gates gates = MakeGates(p_, own_, a_log_, dt_bias_);
    if (threadIdx.x % 32 == 0) shared.gates = gates;
  }

  // Whether a gate of `begin`, all of which were loaded, or of a token up to `end` is NaN or
  // infinity, whatever its head.
  __device__ bool Bad(int64_t begin, int64_t end) const {
    bool bad = false;
#pragma unroll
    for (int i = 0; i < kEarly; ++i) bad |= !isfinite(early_[i].x) || !isfinite(early_[i].y);
    const int lane = threadIdx.x % 32;
    for (int64_t t = begin; t < end; ++t) {
      for (int i = lane + (t == begin ? kEarly * 32 : 0); i < p_.heads.value_heads; i += 32) {
        const float2 gates = LoadGates<Io>(p_, t, i);
        bad |= !isfinite(gates.x) || !isfinite(gates.y);
      }
    }
    return bad;
  }

 private:
  static constexpr int kEarly = 2;

  const FusedGdnDecodeParams& p_;
  int head_;
  float a_log_ = 0.0f;
  float dt_bias_ = 0.0f;
  float2 own_;
  float2 early_[kEarly];
};

// A thread's two channels of the convolution, of q, k or the block's share of v.
template <typename Io, int kSplit>
class ConvThread {
 public:
  __device__ ConvThread(const FusedGdnDecodeParams& p, int head, int share) : p_(p) {
    if (threadIdx.x >= kConvThreads) return;
    const int group = p.heads.value_heads / p.heads.key_heads;
    const int part = threadIdx.x / (kDim / 2);  // 0: q, 1: k, 2: v
    const int first =
        part == 2 ? 2 * p.heads.key_heads + head : part * p.heads.key_heads + head / group;
    channel_ = first * kDim + threadIdx.x % (kDim / 2) * 2 + (part == 2 ? share * kRows : 0);
    conv_dim_ = (2 * p.heads.key_heads + p.heads.value_heads) * kDim;
    owner_ = part == 2 || (head % group == 0 && share == 0);
    weights_ = LoadConvWeights(p, channel_);
  }

  __device__ void Load(int64_t token, int64_t slot, bool has_state) {
    if (threadIdx.x >= kConvThreads) return;
    window_[kWidth - 1] = Mixed(token);
    if (!has_state) return;
    for (int j = 0; j < kWidth - 1; ++j) window_[j].bits = *State(slot, j);
  }

  // y to shared memory, with the sums of squares that the normalisation of q and k needs.
  __device__ void Store(Shared& shared) const {
    if (threadIdx.x >= kConvThreads) return;
    const float2 y = Convolve(p_, weights_, window_);
    reinterpret_cast<float2*>(shared.q)[threadIdx.x] = y;  // q, k and v lie side by side
    if (threadIdx.x >= kDim) return;                       // v; q and k have whole warps
    const float square = WarpSum(fmaf(y.x, y.x, y.y * y.y));
    if (threadIdx.x % 32 == 0) shared.squares[threadIdx.x / 32] = square;
  }

  __device__ void Shift() {
    for (int j = 0; j < kWidth - 1; ++j) window_[j] = window_[j + 1];
  }
  __device__ void Next(int64_t token) {
    if (threadIdx.x < kConvThreads) window_[kWidth - 1] = Mixed(token);
  }

  // Of the blocks that read these channels' conv state, one writes it.
  __device__ void StoreState(int64_t slot) const {
    if (threadIdx.x >= kConvThreads || !owner_) return;
    for (int j = 0; j < kWidth - 1; ++j) *State(slot, j) = window_[j + 1].bits;
  }

 private:
  static constexpr int kRows = kDim / kSplit;  // of V, in a block
  static constexpr int kConvThreads = kDim + kRows / 2;

  __device__ Pair<Io> Mixed(int64_t token) const {
    const Io* x = static_cast<const Io*>(p_.mixed_qkv) + token * p_.mixed_stride + channel_;
    return {__ldg(reinterpret_cast<const uint32_t*>(x))};
  }
  __device__ uint32_t* State(int64_t slot, int tap) const {
    Io* state = static_cast<Io*>(p_.conv.data) + slot * p_.conv.slot_stride;
    return reinterpret_cast<uint32_t*>(state + tap * conv_dim_ + channel_);
  }

  const FusedGdnDecodeParams& p_;
  int channel_;
  int conv_dim_;
  bool owner_;
  ConvWeights weights_;
  Pair<Io> window_[kWidth] = {};
};

// The gated norm of a token's o, by one warp.
template <typename Io>
class NormWarp {
 public:
  __device__ NormWarp(const FusedGdnDecodeParams& p, int head)
      : p_(p), channel_(head * kDim + threadIdx.x % 32 * 4) {
    if (p.z != nullptr) {
      weight_ = __ldg(reinterpret_cast<const float4*>(p.norm_weight) + threadIdx.x % 32);
    }
  }

  __device__ void Load(int64_t token) {
    if (p_.z == nullptr) return;
    const Io* z = static_cast<const Io*>(p_.z) + token * p_.z_stride + channel_;
    z_ = *reinterpret_cast<const Quad<Io>*>(z);
  }

  __device__ bool Store(int64_t token, const Shared& shared) const {
    return NormAndStore(p_, reinterpret_cast<const float4*>(shared.o)[threadIdx.x % 32], weight_,
                        z_, static_cast<Io*>(p_.o) + token * p_.o_stride + channel_);
  }

 private:
  const FusedGdnDecodeParams& p_;
  int channel_;
  float4 weight_ = {};
  Quad<Io> z_ = {};
};

template <typename Io>
__device__ void StoreZeros(const FusedGdnDecodeParams& p, int64_t begin, int64_t end, int head) {
  const Io zero = FromFloat<Io>(0.0f);
  for (int64_t t = begin; t < end; ++t) {
    Io* o = static_cast<Io*>(p.o) + t * p.o_stride + head * kDim;
    if (threadIdx.x < kDim) o[threadIdx.x] = zero;
  }
}

// Grid (HV * kSplit, N), clusters along its x. kSplit > 1: rows of one token.
template <typename Io, typename State, int kSplit>
__global__ void __launch_bounds__(kThreads, 2)
    ClusterKernel(const __grid_constant__ FusedGdnDecodeParams p) {
  constexpr int kRows = kDim / kSplit;  // of V, in this block
  __shared__ __align__(16) Shared shared;
  const int warp = threadIdx.x / 32;
  const int head = blockIdx.x / kSplit, share = blockIdx.x % kSplit;
  const int64_t row = blockIdx.y;
  const int64_t begin = p.rows.offsets == nullptr ? row : p.rows.offsets[row];
  const int64_t end = p.rows.offsets == nullptr ? row + 1 : p.rows.offsets[row + 1];
  const int64_t slot = p.rows.slot(row);
  const bool has_state = p.rows.has_state(row);
  State* state = static_cast<State*>(p.ssm.data) + slot * p.ssm.slot_stride +
                 (int64_t{head} * kDim + share * kRows) * kDim;
  if (threadIdx.x == 0 && begin < end && slot >= 0 && has_state) {
    PrefetchBulk(state, kRows * kDim * sizeof(State));
  }
  ConvThread<Io, kSplit> conv(p, head, share);
  GateWarp<Io> gates(p, head);
  NormWarp<Io> norm(p, head);
  InputCheck<Io> check(p);
  const uint32_t o_full = SharedAddress(&shared.o_full);
  if (kSplit > 1 && threadIdx.x == 0) {
    BarrierInit(o_full, 1);
    BarrierInitFence();
    if (share == 0) BarrierArriveExpect(o_full, kDim * sizeof(float));
  }
  GridDependencyWait();
  GridDependencyLaunch();

  if (begin == end) return;
  if (slot < 0) {
    if (share == 0) StoreZeros<Io>(p, begin, end, head);
    return;
  }

  StateTile<State, kRows / kRowsAtOnce> tile;
  if (has_state) {
    tile.Load(state);
  } else {
    tile.Zero();
  }
  conv.Load(begin, slot, has_state);
  if (warp == kGateWarp) gates.Load(begin), gates.LoadAll(begin);
  if (warp == kNormWarp && share == 0) norm.Load(begin);
  check.Load(begin);

  unsigned faults = 0;
  bool finite = true;
  for (int64_t t = begin; t < end; ++t) {
    conv.Store(shared);
    if (warp == kGateWarp) gates.Store(shared);
    if (t == begin) {
      bool bad = check.Bad(begin, end);
      if (warp == kGateWarp) bad |= gates.Bad(begin, end);
      if (__syncthreads_or(bad) && threadIdx.x == 0) {
        atomicOr(p.faults + row, kFaultNonFinite);
        __threadfence();
      }
      // When this is passed, every block of the cluster has read the conv state and its share of
      // the row's input.
      ClusterArrive();
      ClusterWait();
      faults = LoadRelaxed(p.faults + row);
    } else {
      __syncthreads();
    }
    const TokenHead token = {shared.q, shared.k, shared.v, shared.squares, shared.gates};
    if constexpr (kSplit > 1) {
      const unsigned leader = ClusterRank() - share;
      const uint32_t o = PeerAddress(SharedAddress(shared.o), leader) + share * kRows * 4;
      const uint32_t full = PeerAddress(o_full, leader);
      tile.Step(p, token, [&](int v, float x) { StoreToPeer(o + v * 4, x, full); });
      break;
    } else {
      tile.Step(p, token, [&](int v, float x) { shared.o[v] = x; });
      __syncthreads();
      if (warp == kNormWarp) finite &= norm.Store(t, shared);
      if (t + 1 == end) break;
      conv.Shift();
      conv.Next(t + 1);
      if (warp == kGateWarp) gates.Load(t + 1);
      if (warp == kNormWarp) norm.Load(t + 1);
    }
  }
  if ((faults & kFaultNonFinite) == 0) {
    tile.Store(state);
    conv.StoreState(slot);
  }
  if (kSplit > 1 && share == 0 && warp == kNormWarp) {
    BarrierWait(o_full, 0);
    finite = norm.Store(begin, shared);
  }
  if (!finite) atomicOr(p.faults + row, kFaultOverflow);
}

// Blocks that share the V of a head: the fewer heads there are to run, the more.
int SplitOf(const FusedGdnDecodeParams& p) {
  constexpr int64_t kBlocks = 192;  // beyond, clusters of them no longer fit at once
  if (p.rows.offsets != nullptr) return 1;
  const int group = p.heads.value_heads / p.heads.key_heads;
  for (const int split : {4, 2}) {
    if (split * group <= kMaxCluster && split * p.heads.value_heads * p.rows.count <= kBlocks) {
      return split;
    }
  }
  return 1;
}

// A cluster holds all blocks of a key head and divides those of a row. The largest has the least of
// the check to do in each block; but where every block may have a processor of its own, the
// smallest gets them.
unsigned ClusterOf(const FusedGdnDecodeParams& p, int split) {
  constexpr int64_t kProcessors = 128;
  const int least = p.heads.value_heads / p.heads.key_heads * split;
  const int blocks = p.heads.value_heads * split;
  if (p.rows.offsets == nullptr && blocks * p.rows.count <= kProcessors) return least;
  int size = kMaxCluster;
  while (size % least != 0 || blocks % size != 0) --size;
  return static_cast<unsigned>(size);
}

template <typename Io, typename State, int kSplit>
cudaError_t Launch(const FusedGdnDecodeParams& p, cudaStream_t stream) {
  cudaLaunchAttribute attributes[2];
  attributes[0].id = cudaLaunchAttributeClusterDimension;
  attributes[0].val.clusterDim = {ClusterOf(p, kSplit), 1, 1};
  attributes[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[1].val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(p.heads.value_heads * kSplit, static_cast<unsigned>(p.rows.count));
  config.blockDim = kThreads;
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = 2;
  return cudaLaunchKernelEx(&config, ClusterKernel<Io, State, kSplit>, p);
}

template <typename Io, typename State>
cudaError_t LaunchSplit(const FusedGdnDecodeParams& p, cudaStream_t stream) {
  switch (SplitOf(p)) {
    case 4:
      return Launch<Io, State, 4>(p, stream);
    case 2:
      return Launch<Io, State, 2>(p, stream);
    default:
      return Launch<Io, State, 1>(p, stream);
  }
}

}  // namespace

cudaError_t LaunchCluster(const FusedGdnDecodeParams& p, cudaStream_t stream) {
  const bool fp32 = p.ssm.type == DType::kFp32;
  if (p.io == DType::kBf16) {
    return fp32 ? LaunchSplit<__nv_bfloat16, float>(p, stream)
                : LaunchSplit<__nv_bfloat16, __nv_bfloat16>(p, stream);
  }
  return fp32 ? LaunchSplit<__half, float>(p, stream)
              : LaunchSplit<__half, __nv_bfloat16>(p, stream);
}

}  // namespace gdn::cuda::decode
