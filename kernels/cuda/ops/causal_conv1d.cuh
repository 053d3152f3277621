// The convolution of some consecutive tokens of one row, by one block: what prefill and update
// share.
#pragma once

#include "kernels/cuda/device/dtype.cuh"
#include "kernels/cuda/device/pointwise.cuh"
#include "kernels/ops/causal_conv1d.h"

namespace gdn::cuda::conv {

// A block takes kLanes packs of channels and kSweeps sweeps. A thread sweeps the tokens of one pack
// and has kAhead of them under way: as soon as it has one, it asks for the one kAhead later.
constexpr int kLanes = 64;
constexpr int kSweeps = 2;
constexpr int kThreads = kLanes * kSweeps;
constexpr int kBlocks = 4;  // on one multiprocessor
constexpr int kAhead = 4;   // so an SM has 32 KB of input under way; more brings nothing
constexpr int kPackBytes = 16;

// Consecutive tokens of one row.
struct Sweep {
  int64_t row;
  int64_t row_begin;  // the row's first token in the batch
  int64_t length;     // of the row
  int64_t first;      // the sweep's first token in the row
  int count;          // tokens of the sweep
};

// The channels of a block, and this thread's pack of them.
template <int kPack>
struct Tile {
  __device__ explicit Tile(unsigned tile)
      : first_channel(int64_t{tile} * kLanes * kPack),
        channel(first_channel + threadIdx.x * kPack) {}

  int64_t first_channel;
  int64_t channel;
};

// The weights of a block's channels as [j][channel]. Lines are shifted by 8 banks each, so that the
// words of a warp's stores, which lie at W neighbouring j, fall into different banks.
template <int kWidth, int kPack>
struct StagedWeights {
  static constexpr int kChannels = kLanes * kPack;

  // All threads of the block; barrier afterwards.
  __device__ void Load(const CausalConv1dParams& p, int64_t first_channel) {
    const float* from = p.weight + first_channel * kWidth;
    const int64_t count = (p.channels - first_channel) * kWidth;
    const int thread = threadIdx.y * kLanes + threadIdx.x;
#pragma unroll
    for (int i = thread; i < kChannels * kWidth; i += kThreads) {
      if (i < count) weight[i % kWidth][i / kWidth] = from[i];
    }
  }

  alignas(16) float weight[kWidth][kChannels + 8];
};

// Weights and bias of one thread's channels.
template <int kWidth, int kPack>
struct Filter {
  __device__ Filter(const CausalConv1dParams& p, const StagedWeights<kWidth, kPack>& staged,
                    int64_t channel) {
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      weight[j] = LoadPack<kPack>(&staged.weight[j][threadIdx.x * kPack]);
    }
    if (p.bias != nullptr) bias = LoadPack<kPack>(p.bias + channel);
  }

  Pack<float, kPack> weight[kWidth];
  Pack<float, kPack> bias = {};
};

// y[t] = activation(bias + sum over j < W of weight[j] * x[t - (W - 1) + j]), `window` holding the
// W inputs of token t, oldest first.
template <Activation kActivation, int kWidth, int kPack>
__device__ __forceinline__ Pack<float, kPack> Convolve(const Filter<kWidth, kPack>& filter,
                                                       const Pack<float, kPack> (&window)[kWidth]) {
  Pack<float, kPack> y = filter.bias;
#pragma unroll
  for (int c = 0; c < kPack; ++c) {
#pragma unroll
    for (int j = 0; j < kWidth; ++j) y.e[c] += filter.weight[j].e[c] * window[j].e[c];
  }
  if constexpr (kActivation == Activation::kSilu) {
#pragma unroll
    for (float& e : y.e) e = Silu(e);
  }
  return y;
}

// One pack of channels of a sweep. The sweep that begins a row reads the row's state and, having
// read it, writes the new one: no other thread touches it.
template <typename T, int kWidth, int kPack>
class SweepOfPack {
 public:
  // Asks for the first inputs.
  __device__ __forceinline__ SweepOfPack(const CausalConv1dParams& p, const Sweep& s,
                                         int64_t channel)
      : p_(p), left_(s.count) {
    const int64_t slot = p.rows.slot(s.row);
    const int64_t first_token = s.row_begin + s.first;
    y_ = static_cast<T*>(p.y) + first_token * p.y_stride + channel;
    pad_ = slot < 0;
    if (pad_) return;
    x_ = static_cast<const T*>(p.x) + first_token * p.x_stride + channel;
    const T* before = x_ - (kWidth - 1) * p.x_stride;
#pragma unroll
    for (int i = 0; i < kAhead; ++i) ahead_[i] = Next(i < left_);
    if (s.first > 0) {
#pragma unroll
      for (int j = 0; j < kWidth - 1; ++j) history_[j] = LoadRaw<kPack>(before + j * p.x_stride);
    } else if (p.conv.data != nullptr) {
      BeginRow(s, slot, before + (kWidth - 1) * p.x_stride, channel);
    }
  }

  __device__ __forceinline__ void Finish(const Filter<kWidth, kPack>& filter) {
    if (pad_) return StoreZeros();
    if (p_.activation == Activation::kSilu) {
      ConvolveAll<Activation::kSilu>(filter);
    } else {
      ConvolveAll<Activation::kNone>(filter);
    }
  }

 private:
  using Elements = Pack<T, kPack>;

  // Takes the W - 1 inputs before the row from its slot, to which go the last W - 1 of its inputs
  // and, where it has fewer, what is left of those before it.
  __device__ __forceinline__ void BeginRow(const Sweep& s, int64_t slot, const T* row,
                                           int64_t channel) {
    T* state = static_cast<T*>(p_.conv.data) + slot * p_.conv.slot_stride + channel;
    if (p_.rows.has_state(s.row)) {
#pragma unroll
      for (int j = 0; j < kWidth - 1; ++j) history_[j] = LoadRaw<kPack>(state + j * p_.channels);
    }
#pragma unroll
    for (int j = 0; j < kWidth - 1; ++j) {
      const int64_t t = s.length - (kWidth - 1) + j;
      Elements input;
      if (t >= 0) input = LoadRaw<kPack>(row + t * p_.x_stride);
#pragma unroll
      for (int i = 0; i < kWidth - 1; ++i) {
        if (t + kWidth - 1 == i) input = history_[i];
      }
      StoreRaw(input, state + j * p_.channels);
    }
  }

  // The next inputs of the sweep, zeros beyond its end.
  __device__ __forceinline__ Words<T, kPack> Next(bool exists) {
    Words<T, kPack> input;
    if (exists) input = LoadWords<kPack>(x_);
    x_ += p_.x_stride;
    return input;
  }

  template <Activation kActivation>
  __device__ __forceinline__ void ConvolveAll(const Filter<kWidth, kPack>& filter) {
    Pack<float, kPack> window[kWidth];
#pragma unroll
    for (int j = 0; j < kWidth - 1; ++j) window[j + 1] = Widen(history_[j]);
#pragma unroll 1
    for (; left_ > 0; left_ -= kAhead) {
      if (left_ >= 2 * kAhead) {
        ConvolveBatch<kActivation, true>(filter, window);
      } else {
        ConvolveBatch<kActivation, false>(filter, window);
      }
    }
  }

  // The next kAhead tokens. With kWhole they and the kAhead after them exist.
  template <Activation kActivation, bool kWhole>
  __device__ __forceinline__ void ConvolveBatch(const Filter<kWidth, kPack>& filter,
                                                Pack<float, kPack> (&window)[kWidth]) {
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
#pragma unroll
      for (int j = 0; j < kWidth - 1; ++j) window[j] = window[j + 1];
      window[kWidth - 1] = Widen(ahead_[i]);
      ahead_[i] = Next(kWhole || i + kAhead < left_);
      const auto out = Convolve<kActivation>(filter, window);
      if (kWhole || i < left_) StorePack(out, y_);
      y_ += p_.y_stride;
    }
  }

  __device__ void StoreZeros() {
    for (; left_ > 0; --left_, y_ += p_.y_stride) StorePack(Pack<float, kPack>{}, y_);
  }

  const CausalConv1dParams& p_;
  int left_;  // tokens
  bool pad_;
  const T* x_;
  T* y_;
  Words<T, kPack> ahead_[kAhead];
  Elements history_[kWidth - 1] = {};
};

// Whether a thread can take kPackBytes of channels; otherwise it takes one.
template <typename T>
bool Packed(const CausalConv1dParams& p) {
  constexpr int kPack = kPackBytes / sizeof(T);
  return p.channels % kPack == 0 && TakesPacks<kPack>(p.x, p.x_stride) &&
         TakesPacks<kPack>(p.y, p.y_stride) && TakesPacks<kPack>(p.conv.data, p.conv.slot_stride) &&
         TakesPacks<kPack>(p.weight, 0) && TakesPacks<kPack>(p.bias, 0);
}

// Calls launch(T, W, pack) with values whose types carry the three as `value` or as themselves.
template <typename Launch>
cudaError_t Specialise(const CausalConv1dParams& p, Launch&& launch) {
  return WithType(p.io, [&](auto element) {
    using T = decltype(element);
    const auto with_width = [&](auto pack) {
      switch (p.width) {
        case 2:
          return launch(element, Constant<2>{}, pack);
        case 3:
          return launch(element, Constant<3>{}, pack);
        default:
          return launch(element, Constant<4>{}, pack);
      }
    };
    return Packed<T>(p) ? with_width(Constant<kPackBytes / sizeof(T)>{})
                        : with_width(Constant<1>{});
  });
}

inline bool Valid(const CausalConv1dParams& p) {
  return p.width >= 2 && p.width <= 4 && p.channels >= 0 && p.rows.count >= 0 &&
         (p.conv.data == nullptr || p.conv.type == p.io);
}

// Tiles of channels, where a grid of so many for each of `items` is possible; otherwise 0.
inline unsigned Tiles(const CausalConv1dParams& p, int64_t items, int pack) {
  const int64_t tiles = (p.channels + kLanes * pack - 1) / (kLanes * pack);
  return items <= ((int64_t{1} << 31) - 1) / tiles ? static_cast<unsigned>(tiles) : 0;
}

}  // namespace gdn::cuda::conv
