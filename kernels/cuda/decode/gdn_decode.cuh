// What the two kernels of fused_gdn_decode.cu share: the arithmetic of a token, in one order, so
// that a row's bits are the same by whichever it goes.
#pragma once

#include <type_traits>

#include "kernels/cuda/device/dtype.cuh"
#include "kernels/cuda/device/pointwise.cuh"
#include "kernels/cuda/device/ptx.cuh"
#include "kernels/ops/fused_gdn_decode.h"

namespace gdn::cuda::decode {

inline constexpr int kDim = 128;      // K and V
inline constexpr int kWidth = 4;      // W
inline constexpr int kThreads = 256;  // that hold a state [V][K]
inline constexpr int kWarps = kThreads / 32;
inline constexpr int kLanes = 8;                     // lanes that share a row of the state
inline constexpr int kStateColumns = kDim / kLanes;  // of a thread
inline constexpr int kRowsAtOnce = kThreads / kLanes;

// Two neighbouring elements of the io type as they lie in memory.
template <typename Io>
struct Pair {
  uint32_t bits;
  __device__ float2 floats() const {
    const Io* x = reinterpret_cast<const Io*>(&bits);
    return {ToFloat(x[0]), ToFloat(x[1])};
  }
};

// Whether one of the two 16-bit numbers in `bits` is NaN or infinity.
template <typename Io>
__device__ bool NonFinite(uint32_t bits) {
  constexpr uint32_t kExponent = sizeof(Io) == 2 && std::is_same_v<Io, __half> ? 0x7c00 : 0x7f80;
  return (bits & kExponent) == kExponent || (bits >> 16 & kExponent) == kExponent;
}

template <typename Io>
__device__ bool NonFinite(uint4 v) {
  return NonFinite<Io>(v.x) || NonFinite<Io>(v.y) || NonFinite<Io>(v.z) || NonFinite<Io>(v.w);
}

// The taps and the bias of two neighbouring channels.
struct ConvWeights {
  float4 taps[2];
  float2 bias;
};

__device__ inline ConvWeights LoadConvWeights(const FusedGdnDecodeParams& p, int64_t channel) {
  const auto* taps = reinterpret_cast<const float4*>(p.conv_weight) + channel;
  ConvWeights w = {{__ldg(taps), __ldg(taps + 1)}, {0.0f, 0.0f}};
  if (p.conv_bias != nullptr)
    w.bias = __ldg(reinterpret_cast<const float2*>(p.conv_bias + channel));
  return w;
}

__device__ inline float Taps(float bias, const float4& w, float x0, float x1, float x2, float x3) {
  return fmaf(w.w, x3, fmaf(w.z, x2, fmaf(w.y, x1, fmaf(w.x, x0, bias))));
}

// y[c] = activation(bias[c] + sum over j of weight[c, j] * x[t - 3 + j, c]) for two channels
template <typename Io>
__device__ float2 Convolve(const FusedGdnDecodeParams& p, const ConvWeights& w,
                           const Pair<Io> (&window)[kWidth]) {
  const float2 x0 = window[0].floats(), x1 = window[1].floats(), x2 = window[2].floats(),
               x3 = window[3].floats();
  const float2 y = {Taps(w.bias.x, w.taps[0], x0.x, x1.x, x2.x, x3.x),
                    Taps(w.bias.y, w.taps[1], x0.y, x1.y, x2.y, x3.y)};
  return p.activation == Activation::kSilu ? float2{Silu(y.x), Silu(y.y)} : y;
}

// The sum over the warp, in every lane.
__device__ inline float WarpSum(float x) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(~0u, x, step);
  return x;
}

// Of a head: (a, b), or (g, beta) where they are given; zeros beyond the last head.
template <typename Io>
__device__ float2 LoadGates(const FusedGdnDecodeParams& p, int64_t token, int head) {
  if (head >= p.heads.value_heads) return {0.0f, 0.0f};
  if (p.g != nullptr) {
    const int64_t at = token * p.heads.value_heads + head;
    return {__ldg(p.g + at), __ldg(p.beta + at)};
  }
  const int64_t at = token * p.ba_stride + head;
  return {ToFloat(static_cast<const Io*>(p.a)[at]), ToFloat(static_cast<const Io*>(p.b)[at])};
}

struct Gates {
  float decay;  // exp(g)
  float beta;
};

// decay = exp(-exp(a_log) * softplus(a + dt_bias)), beta = sigmoid(b)
__device__ inline Gates MakeGates(const FusedGdnDecodeParams& p, float2 loaded, float a_log,
                                  float dt_bias) {
  if (p.g != nullptr) return {expf(loaded.x), loaded.y};
  return {expf(-expf(a_log) * Softplus(loaded.x + dt_bias)), Sigmoid(loaded.y)};
}

// What a token brings to the state of one value head, in shared memory.
struct TokenHead {
  const float* q;        // [K], as convolved
  const float* k;        // [K]
  const float* v;        // [V]
  const float* squares;  // the sums of squares of q's halves, then of k's
  Gates gates;
};

// A thread's part of kStateRows * kRowsAtOnce rows of a state [V][K]: kStateRows rows, and of each
// the pieces of 16 bytes that are kLanes pieces apart.
template <typename State, int kStateRows>
class StateTile {
 public:
  static constexpr int kPiece = 16 / sizeof(State);  // elements
  static constexpr int kPieces = kStateColumns / kPiece;

  __device__ int row(int i) const { return row_ + i * (32 / kLanes); }
  __device__ int column(int piece) const { return column_ + piece * kLanes * kPiece; }

  __device__ void Zero() {
    for (auto& row : s_) {
      for (float& x : row) x = 0.0f;
    }
  }

  // From and to global memory.
  __device__ void Load(const State* state) {
    state += row_ * kDim + column_;
    uint4 raw[kStateRows][kPieces];
#pragma unroll
    for (int i = 0; i < kStateRows; ++i) {
#pragma unroll
      for (int j = 0; j < kPieces; ++j) raw[i][j] = LoadStreaming(state + Offset(i, j));
    }
#pragma unroll
    for (int i = 0; i < kStateRows; ++i) {
#pragma unroll
      for (int j = 0; j < kPieces; ++j) Unpack(raw[i][j], i, j);
    }
  }
  __device__ void Store(State* state) const {
    state += row_ * kDim + column_;
#pragma unroll
    for (int i = 0; i < kStateRows; ++i) {
#pragma unroll
      for (int j = 0; j < kPieces; ++j) StoreStreaming(state + Offset(i, j), Packed(i, j));
    }
  }

  // From and to shared memory.
  __device__ void LoadShared(const State* state) {
    state += row_ * kDim + column_;
#pragma unroll
    for (int i = 0; i < kStateRows; ++i) {
#pragma unroll
      for (int j = 0; j < kPieces; ++j) {
        Unpack(*reinterpret_cast<const uint4*>(state + Offset(i, j)), i, j);
      }
    }
  }
  __device__ void StoreShared(State* state) const {
    state += row_ * kDim + column_;
#pragma unroll
    for (int i = 0; i < kStateRows; ++i) {
#pragma unroll
      for (int j = 0; j < kPieces; ++j) {
        *reinterpret_cast<uint4*>(state + Offset(i, j)) = Packed(i, j);
      }
    }
  }

  // S *= decay;  d = beta * (v - S k);  S += d kᵀ;  o = S q
  // With S read once: S' q = decay * S q + d * (k · q). q and k are normalised after the products.
  // sink(row, o) takes the output, from one lane of each row.
  template <typename Sink>
  __device__ void Step(const FusedGdnDecodeParams& p, const TokenHead& token, Sink&& sink) {
    float kq = 0.0f, sk[kStateRows] = {}, sq[kStateRows] = {};
#pragma unroll
    for (int j = 0; j < kPieces; ++j) {
      const Piece q = Columns(token.q, j), k = Columns(token.k, j);
#pragma unroll
      for (int e = 0; e < kPiece; ++e) {
        kq = fmaf(k.x[e], q.x[e], kq);
#pragma unroll
        for (int i = 0; i < kStateRows; ++i) {
          sk[i] = fmaf(s_[i][j * kPiece + e], k.x[e], sk[i]);
          sq[i] = fmaf(s_[i][j * kPiece + e], q.x[e], sq[i]);
        }
      }
    }
#pragma unroll
    for (int step = kLanes / 2; step > 0; step /= 2) {
      kq += __shfl_xor_sync(~0u, kq, step);
#pragma unroll
      for (int i = 0; i < kStateRows; ++i) {
        sk[i] += __shfl_xor_sync(~0u, sk[i], step);
        sq[i] += __shfl_xor_sync(~0u, sq[i], step);
      }
    }
    float q_scale = p.scale, k_scale = 1.0f;
    if (p.qk_l2norm) {
      q_scale *= InverseRoot(token.squares[0] + token.squares[1] + kL2NormEps);
      k_scale = InverseRoot(token.squares[2] + token.squares[3] + kL2NormEps);
    }
    const float decay = token.gates.decay, beta = token.gates.beta;
    float d[kStateRows];
#pragma unroll
    for (int i = 0; i < kStateRows; ++i) {
      d[i] = beta * fmaf(-decay, sk[i] * k_scale, token.v[row(i)]) * k_scale;
      if (threadIdx.x % kLanes == 0) sink(row(i), fmaf(decay, sq[i], d[i] * kq) * q_scale);
    }
#pragma unroll
    for (int j = 0; j < kPieces; ++j) {
      const Piece k = Columns(token.k, j);
#pragma unroll
      for (int i = 0; i < kStateRows; ++i) {
#pragma unroll
        for (int e = 0; e < kPiece; ++e) {
          float& s = s_[i][j * kPiece + e];
          s = fmaf(decay, s, d[i] * k.x[e]);
        }
      }
    }
  }

 private:
  struct Piece {
    float x[kPiece];
  };

  __device__ Piece Columns(const float* from, int j) const {
    Piece piece;
#pragma unroll
    for (int e = 0; e < kPiece; e += 4) {
      *reinterpret_cast<float4*>(piece.x + e) =
          *reinterpret_cast<const float4*>(from + column(j) + e);
    }
    return piece;
  }

  __device__ void Unpack(uint4 raw, int i, int j) {
    const State* x = reinterpret_cast<const State*>(&raw);
#pragma unroll
    for (int e = 0; e < kPiece; ++e) s_[i][j * kPiece + e] = ToFloat(x[e]);
  }
  __device__ uint4 Packed(int i, int j) const {
    uint4 raw;
    State* x = reinterpret_cast<State*>(&raw);
#pragma unroll
    for (int e = 0; e < kPiece; ++e) x[e] = FromFloat<State>(s_[i][j * kPiece + e]);
    return raw;
  }

  // Of piece j of row i from the thread's first.
  static constexpr int Offset(int i, int j) {
    return i * (32 / kLanes) * kDim + j * kLanes * kPiece;
  }

  int row_ = threadIdx.x / 32 * (kStateRows * 32 / kLanes) + threadIdx.x % 32 / kLanes;
  int column_ = threadIdx.x % kLanes * kPiece;
  float s_[kStateRows][kStateColumns];
};

// Four neighbouring elements of the io type.
template <typename Io>
struct alignas(8) Quad {
  Io x[4];
};

// y = o * rsqrt(mean of o² + eps) * weight * gate(z), by one warp, four elements a lane; o itself
// without z. False where y is NaN or infinity.
template <typename Io>
__device__ bool NormAndStore(const FusedGdnDecodeParams& p, const float4 o, const float4 weight,
                             const Quad<Io> gate, Io* to) {
  float y[4] = {o.x, o.y, o.z, o.w};
  if (p.z != nullptr) {
    const float square = WarpSum(fmaf(o.x, o.x, fmaf(o.y, o.y, fmaf(o.z, o.z, o.w * o.w))));
    const float scale = InverseRoot(fmaf(square, 1.0f / kDim, p.norm_eps));
    const float w[4] = {weight.x, weight.y, weight.z, weight.w};
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const float z = ToFloat(gate.x[e]);
      y[e] *= scale * w[e] * (p.gate == Gate::kSilu ? Silu(z) : Sigmoid(z));
    }
  }
  Quad<Io> out;
  bool finite = true;
#pragma unroll
  for (int e = 0; e < 4; ++e) {
    out.x[e] = FromFloat<Io>(y[e]);
    finite = finite && isfinite(ToFloat(out.x[e]));
  }
  *reinterpret_cast<Quad<Io>*>(to) = out;
  return finite;
}

}  // namespace gdn::cuda::decode
