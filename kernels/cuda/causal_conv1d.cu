#include "kernels/cuda/causal_conv1d.h"
#include "kernels/cuda/dtype.cuh"
#include "kernels/cuda/pointwise.cuh"
#include "kernels/ops/operands.h"

namespace gdn::cuda {
namespace {

// A block takes kLanes packs of channels, of one chunk of a row in the prefill and of one token of
// kSweeps rows in the update. A thread sweeps the tokens of one pack, kBatch of them under way
// while as many are computed.
constexpr int kLanes = 64;
constexpr int kSweep = 32;
constexpr int kBatch = 4;
constexpr int kSweeps = kChunk / kSweep;
constexpr int kThreads = kLanes * kSweeps;
constexpr int kBlocks = 7;     // on one multiprocessor
constexpr int kPackBytes = 8;  // with 16 the registers allow fewer warps, which costs a tenth

// Consecutive tokens of one row.
struct Sweep {
  int64_t row;
  int64_t row_begin;  // the row's first token in the batch
  int64_t length;     // of the row
  int64_t first;      // the sweep's first token in the row
  int count;          // tokens of the sweep; 0: there is nothing to do
};

template <typename T, int kPack>
__device__ void StoreZeros(const CausalConv1dParams& p, const Sweep& s, int64_t channel) {
  T* y = static_cast<T*>(p.y) + (s.row_begin + s.first) * p.y_stride + channel;
  for (int t = 0; t < s.count; ++t) StorePack(Pack<float, kPack>{}, y + t * p.y_stride);
}

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
template <int kWidth, int kPack>
__device__ Pack<float, kPack> Convolve(const Filter<kWidth, kPack>& filter, Activation activation,
                                       const Pack<float, kPack> (&window)[kWidth]) {
  Pack<float, kPack> y = filter.bias;
#pragma unroll
  for (int c = 0; c < kPack; ++c) {
#pragma unroll
    for (int j = 0; j < kWidth; ++j) y.e[c] += filter.weight[j].e[c] * window[j].e[c];
  }
  if (activation == Activation::kSilu) {
#pragma unroll
    for (float& e : y.e) e = Silu(e);
  }
  return y;
}

// The last W - 1 inputs of the row go to its slot: those of its tokens and, where it has fewer,
// what is left of `history`, the W - 1 inputs before its first token.
template <typename T, int kWidth, int kPack>
__device__ void KeepInputs(const T* x, int64_t x_stride, int64_t length, T* state, int64_t channels,
                           const Pack<T, kPack> (&history)[kWidth - 1]) {
#pragma unroll
  for (int j = 0; j < kWidth - 1; ++j) {
    const int64_t t = length - (kWidth - 1) + j;
    Pack<T, kPack> input;
    if (t >= 0) input = LoadRaw<kPack>(x + t * x_stride);
#pragma unroll
    for (int i = 0; i < kWidth - 1; ++i) {
      if (t + kWidth - 1 == i) input = history[i];
    }
    StoreRaw(input, state + j * channels);
  }
}

// The next kBatch inputs, of which `left` exist; the others are zero. Moves x past them.
template <typename T, int kPack>
__device__ __forceinline__ void LoadBatch(const T*& x, int64_t stride, int left,
                                          Pack<T, kPack> (&inputs)[kBatch]) {
#pragma unroll
  for (int i = 0; i < kBatch; ++i, x += stride) {
    inputs[i] = {};
    if (i < left) inputs[i] = LoadRaw<kPack>(x);
  }
}

// One sweep of kPack channels. The sweep that begins a row reads the row's state and, having read
// it, writes the new one: no other thread touches it.
template <typename T, int kWidth, int kPack>
__device__ void ConvolveSweep(const CausalConv1dParams& p, const Sweep& s, int64_t channel,
                              const StagedWeights<kWidth, kPack>& staged) {
  using Elements = Pack<T, kPack>;
  const int64_t slot = p.rows.slot(s.row);
  if (slot < 0) return StoreZeros<T, kPack>(p, s, channel);
  const T* row = static_cast<const T*>(p.x) + s.row_begin * p.x_stride + channel;
  T* state = p.conv.data == nullptr
                 ? nullptr
                 : static_cast<T*>(p.conv.data) + slot * p.conv.slot_stride + channel;
  const T* x = row + s.first * p.x_stride;
  T* y = static_cast<T*>(p.y) + (s.row_begin + s.first) * p.y_stride + channel;

  Elements history[kWidth - 1] = {};
  const bool has_state = state != nullptr && p.rows.has_state(s.row);
#pragma unroll
  for (int j = 0; j < kWidth - 1; ++j) {
    if (s.first > 0) {
      history[j] = LoadRaw<kPack>(x + (j - (kWidth - 1)) * p.x_stride);
    } else if (has_state) {
      history[j] = LoadRaw<kPack>(state + j * p.channels);
    }
  }
  if (s.first == 0 && state != nullptr) {
    KeepInputs<T, kWidth, kPack>(row, p.x_stride, s.length, state, p.channels, history);
  }
  const Filter<kWidth, kPack> filter(p, staged, channel);
  Pack<float, kPack> window[kWidth];
#pragma unroll
  for (int j = 0; j < kWidth - 1; ++j) window[j + 1] = Widen(history[j]);

  Elements next[kBatch];
  LoadBatch(x, p.x_stride, s.count, next);
#pragma unroll 1
  for (int left = s.count; left > 0; left -= kBatch) {
    Elements inputs[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) inputs[i] = next[i];
    LoadBatch(x, p.x_stride, left - kBatch, next);
#pragma unroll
    for (int i = 0; i < kBatch; ++i, y += p.y_stride) {
#pragma unroll
      for (int j = 0; j < kWidth - 1; ++j) window[j] = window[j + 1];
      window[kWidth - 1] = Widen(inputs[i]);
      const auto out = Convolve(filter, p.activation, window);
      if (i < left) StorePack(out, y);
    }
  }
}

template <typename T, int kWidth, int kPack>
__device__ void RunBlock(const CausalConv1dParams& p, unsigned tile, const Sweep& s) {
  __shared__ StagedWeights<kWidth, kPack> staged;
  const int64_t first_channel = int64_t{tile} * kLanes * kPack;
  const int64_t channel = first_channel + threadIdx.x * kPack;
  staged.Load(p, first_channel);
  __syncthreads();
  if (s.count > 0 && channel < p.channels) {
    ConvolveSweep<T, kWidth, kPack>(p, s, channel, staged);
  }
}

template <typename T, int kWidth, int kPack>
__global__ void __launch_bounds__(kThreads, kBlocks)
    CausalConv1dFnKernel(CausalConv1dFnParams p, Chunks chunks, unsigned tiles) {
  const int64_t chunk = blockIdx.x / tiles;
  Sweep s;
  s.row = chunks.chunk_indices[2 * chunk];
  s.first = chunks.chunk_indices[2 * chunk + 1] * kChunk + threadIdx.y * kSweep;
  s.row_begin = p.rows.offsets[s.row];
  s.length = p.rows.offsets[s.row + 1] - s.row_begin;
  s.count = static_cast<int>(max(int64_t{0}, min(s.length - s.first, int64_t{kSweep})));
  RunBlock<T, kWidth, kPack>(p, blockIdx.x % tiles, s);
}

template <typename T, int kWidth, int kPack>
__global__ void __launch_bounds__(kThreads)
    CausalConv1dUpdateKernel(CausalConv1dUpdateParams p, unsigned tiles) {
  const int64_t row = int64_t{blockIdx.x / tiles} * kSweeps + threadIdx.y;
  const Sweep s = {row, row, 1, 0, row < p.rows.count ? 1 : 0};
  RunBlock<T, kWidth, kPack>(p, blockIdx.x % tiles, s);
}

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

bool Valid(const CausalConv1dParams& p) {
  return p.width >= 2 && p.width <= 4 && p.channels >= 0 && p.rows.count >= 0 &&
         (p.conv.data == nullptr || p.conv.type == p.io);
}

// Tiles of channels, where a grid of so many for each of `items` is possible; otherwise 0.
unsigned Tiles(const CausalConv1dParams& p, int64_t items, int pack) {
  const int64_t tiles = (p.channels + kLanes * pack - 1) / (kLanes * pack);
  return items <= ((int64_t{1} << 31) - 1) / tiles ? static_cast<unsigned>(tiles) : 0;
}

}  // namespace

cudaError_t CausalConv1dFn(const CausalConv1dFnParams& p, const Chunks& chunks,
                           cudaStream_t stream) {
  if (!Valid(p) || chunks.count < 0) return cudaErrorInvalidValue;
  if (chunks.count == 0 || p.channels == 0) return cudaSuccess;
  return Specialise(p, [&](auto element, auto width, auto pack) {
    const unsigned tiles = Tiles(p, chunks.count, pack.value);
    if (tiles == 0) return cudaErrorInvalidValue;
    CausalConv1dFnKernel<decltype(element), width.value, pack.value>
        <<<static_cast<unsigned>(chunks.count) * tiles, dim3(kLanes, kSweeps), 0, stream>>>(
            p, chunks, tiles);
    return cudaGetLastError();
  });
}

cudaError_t CausalConv1dUpdate(const CausalConv1dUpdateParams& p, cudaStream_t stream) {
  if (!Valid(p)) return cudaErrorInvalidValue;
  if (p.rows.count == 0 || p.channels == 0) return cudaSuccess;
  return Specialise(p, [&](auto element, auto width, auto pack) {
    const int64_t blocks = (p.rows.count + kSweeps - 1) / kSweeps;
    const unsigned tiles = Tiles(p, blocks, pack.value);
    if (tiles == 0) return cudaErrorInvalidValue;
    CausalConv1dUpdateKernel<decltype(element), width.value, pack.value>
        <<<static_cast<unsigned>(blocks) * tiles, dim3(kLanes, kSweeps), 0, stream>>>(p, tiles);
    return cudaGetLastError();
  });
}

}  // namespace gdn::cuda
