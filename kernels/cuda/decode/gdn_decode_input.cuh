// The input of the works of gdn_decode_stream.cu: its check, and the warps that convolve it.
#pragma once

#include "kernels/cuda/decode/gdn_decode_stream.cuh"

namespace gdn::cuda::decode {

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

}  // namespace gdn::cuda::decode
