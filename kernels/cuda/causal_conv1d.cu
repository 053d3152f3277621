#include "kernels/cuda/causal_conv1d.h"
#include "kernels/cuda/dtype.cuh"
#include "kernels/cuda/pointwise.cuh"
#include "kernels/ops/operands.h"

namespace gdn::cuda {
namespace {

// A block of the prefill takes one chunk of a row and kLanes packs of channels. A thread sweeps
// kSweep tokens of its pack, kBatch of them in flight at a time.
constexpr int kLanes = 64;
constexpr int kSweep = 16;
constexpr int kBatch = 8;
constexpr int kSweeps = kChunk / kSweep;
constexpr int kUpdateThreads = 128;

// Consecutive tokens of one row.
struct Sweep {
  int64_t row;
  int64_t row_begin;  // the row's first token in the batch
  int64_t length;     // of the row
  int64_t first;      // the sweep's first token in the row
  int count;          // tokens of the sweep
};

template <typename T, int kPack>
__device__ void StoreZeros(const CausalConv1dParams& p, const Sweep& s, int64_t channel) {
  T* y = static_cast<T*>(p.y) + (s.row_begin + s.first) * p.y_stride + channel;
  for (int t = 0; t < s.count; ++t) StorePack(Pack<float, kPack>{}, y + t * p.y_stride);
}

// Weights of kPack channels, [channel][j] as in memory, and their bias.
template <int kWidth, int kPack>
struct Filter {
  __device__ Filter(const CausalConv1dParams& p, int64_t channel) {
    constexpr int kPiece = kPack == 1 ? 1 : 4;
#pragma unroll
    for (int i = 0; i < kPack * kWidth; i += kPiece) {
      const auto piece = LoadPack<kPiece>(p.weight + channel * kWidth + i);
#pragma unroll
      for (int j = 0; j < kPiece; ++j) weight[i + j] = piece.e[j];
    }
    if (p.bias != nullptr) bias = LoadPack<kPack>(p.bias + channel);
  }

  float weight[kPack * kWidth];
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
    for (int j = 0; j < kWidth; ++j) y.e[c] += filter.weight[c * kWidth + j] * window[j].e[c];
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
    if (t >= 0) input = *reinterpret_cast<const Pack<T, kPack>*>(x + t * x_stride);
#pragma unroll
    for (int i = 0; i < kWidth - 1; ++i) {
      if (t + kWidth - 1 == i) input = history[i];
    }
    *reinterpret_cast<Pack<T, kPack>*>(state + j * channels) = input;
  }
}

// One sweep of kPack channels. The sweep that begins a row reads the row's state and, having read
// it, writes the new one: no other thread touches it.
template <typename T, int kWidth, int kPack, int kTokens, int kInFlight>
__device__ void ConvolveSweep(const CausalConv1dParams& p, const Sweep& s, int64_t channel) {
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
      history[j] = *reinterpret_cast<const Elements*>(x + (j - (kWidth - 1)) * p.x_stride);
    } else if (has_state) {
      history[j] = *reinterpret_cast<const Elements*>(state + j * p.channels);
    }
  }
  const Filter<kWidth, kPack> filter(p, channel);
  Pack<float, kPack> window[kWidth];
#pragma unroll
  for (int j = 0; j < kWidth - 1; ++j) window[j + 1] = Widen(history[j]);

  for (int begin = 0; begin < kTokens && begin < s.count; begin += kInFlight) {
    Elements inputs[kInFlight] = {};
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) {
      if (begin + i < s.count) {
        inputs[i] = *reinterpret_cast<const Elements*>(x + (begin + i) * p.x_stride);
      }
    }
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) {
#pragma unroll
      for (int j = 0; j < kWidth - 1; ++j) window[j] = window[j + 1];
      window[kWidth - 1] = Widen(inputs[i]);
      const auto out = Convolve(filter, p.activation, window);
      if (begin + i < s.count) StorePack(out, y + (begin + i) * p.y_stride);
    }
  }
  if (s.first == 0 && state != nullptr) {
    KeepInputs<T, kWidth, kPack>(row, p.x_stride, s.length, state, p.channels, history);
  }
}

template <typename T, int kWidth, int kPack>
__global__ void __launch_bounds__(kLanes* kSweeps)
    CausalConv1dFnKernel(CausalConv1dFnParams p, Chunks chunks, unsigned tiles) {
  const int64_t chunk = blockIdx.x / tiles;
  const int64_t channel = int64_t{blockIdx.x % tiles * kLanes + threadIdx.x} * kPack;
  if (channel >= p.channels) return;
  Sweep s;
  s.row = chunks.chunk_indices[2 * chunk];
  s.first = chunks.chunk_indices[2 * chunk + 1] * kChunk + threadIdx.y * kSweep;
  s.row_begin = p.rows.offsets[s.row];
  s.length = p.rows.offsets[s.row + 1] - s.row_begin;
  if (s.first >= s.length) return;
  s.count = static_cast<int>(min(s.length - s.first, int64_t{kSweep}));
  ConvolveSweep<T, kWidth, kPack, kSweep, kBatch>(p, s, channel);
}

template <typename T, int kWidth, int kPack>
__global__ void __launch_bounds__(kUpdateThreads)
    CausalConv1dUpdateKernel(CausalConv1dUpdateParams p, unsigned tiles) {
  const int64_t row = blockIdx.x / tiles;
  const int64_t channel = int64_t{blockIdx.x % tiles * kUpdateThreads + threadIdx.x} * kPack;
  if (channel >= p.channels) return;
  ConvolveSweep<T, kWidth, kPack, 1, 1>(p, {row, row, 1, 0, 1}, channel);
}

// Channels that a thread takes: 16 bytes of them where everything is aligned for it, otherwise one.
template <typename T>
bool Packed(const CausalConv1dParams& p) {
  constexpr int kPack = 16 / sizeof(T);
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
    return Packed<T>(p) ? with_width(Constant<16 / sizeof(T)>{}) : with_width(Constant<1>{});
  });
}

bool Valid(const CausalConv1dParams& p) {
  return p.width >= 2 && p.width <= 4 && p.channels >= 0 && p.rows.count >= 0 &&
         (p.conv.data == nullptr || p.conv.type == p.io);
}

// Blocks for `items` with `lanes` packs of channels each; 0 tiles where they are too many.
unsigned Tiles(const CausalConv1dParams& p, int64_t items, int64_t lanes, int pack) {
  const int64_t tiles = (p.channels + lanes * pack - 1) / (lanes * pack);
  return items <= ((int64_t{1} << 31) - 1) / tiles ? static_cast<unsigned>(tiles) : 0;
}

}  // namespace

cudaError_t CausalConv1dFn(const CausalConv1dFnParams& p, const Chunks& chunks,
                           cudaStream_t stream) {
  if (!Valid(p) || chunks.count < 0) return cudaErrorInvalidValue;
  if (chunks.count == 0 || p.channels == 0) return cudaSuccess;
  return Specialise(p, [&](auto element, auto width, auto pack) {
    const unsigned tiles = Tiles(p, chunks.count, kLanes, pack.value);
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
    const unsigned tiles = Tiles(p, p.rows.count, kUpdateThreads, pack.value);
    if (tiles == 0) return cudaErrorInvalidValue;
    CausalConv1dUpdateKernel<decltype(element), width.value, pack.value>
        <<<static_cast<unsigned>(p.rows.count) * tiles, kUpdateThreads, 0, stream>>>(p, tiles);
    return cudaGetLastError();
  });
}

}  // namespace gdn::cuda
