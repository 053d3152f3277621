#include "kernels/cuda/device/dtype.cuh"
#include "kernels/cuda/device/pointwise.cuh"
#include "kernels/cuda/ops/fused_recurrent_gated_delta_rule.h"

namespace gdn::cuda {
namespace {

// A block takes a tile of V of one value head of one row. Eight lanes share a row of the state
// [V][K]: each holds every eighth quad of its K elements in registers, for kColumns rows. So a
// product with q or k is summed by three shuffles and nothing passes through shared memory.
constexpr int kThreads = 128;
constexpr int kLanes = 8;
constexpr int kGroups = kThreads / kLanes;
constexpr int kQuad = 4;

// kQuads quads of a vector over K, as they are in memory or widened.
template <typename T, int kQuads>
struct Slice {
  Pack<T, kQuad> quads[kQuads];
};

template <int kQuads>
using Wide = Slice<float, kQuads>;

// The lane's quads of the vector of K elements at `data`; those beyond K are zero. Nothing looks at
// the elements here, so that all loads of a token and of a state are under way together.
template <int kQuads, typename T>
__device__ __forceinline__ Slice<T, kQuads> LoadSlice(const T* data, int key_dim) {
  Slice<T, kQuads> slice;
#pragma unroll
  for (int i = 0; i < kQuads; ++i) {
    const int at = (i * kLanes + threadIdx.x % kLanes) * kQuad;
    slice.quads[i] = {};
    if (at < key_dim) slice.quads[i] = LoadRaw<kQuad>(data + at);
  }
  return slice;
}

template <int kQuads, typename T>
__device__ __forceinline__ void StoreSlice(const Wide<kQuads>& slice, T* data, int key_dim) {
#pragma unroll
  for (int i = 0; i < kQuads; ++i) {
    const int at = (i * kLanes + threadIdx.x % kLanes) * kQuad;
    if (at < key_dim) StorePack(slice.quads[i], data + at);
  }
}

template <typename T, int kQuads>
__device__ __forceinline__ Wide<kQuads> Widen(const Slice<T, kQuads>& raw) {
  Wide<kQuads> slice;
#pragma unroll
  for (int i = 0; i < kQuads; ++i) slice.quads[i] = Widen(raw.quads[i]);
  return slice;
}

// The sum over K of a * b, in all lanes.
template <int kQuads>
__device__ __forceinline__ float Dot(const Wide<kQuads>& a, const Wide<kQuads>& b) {
  Pack<float, kQuad> sums = {};
#pragma unroll
  for (int i = 0; i < kQuads; ++i) {
#pragma unroll
    for (int e = 0; e < kQuad; ++e) sums.e[e] += a.quads[i].e[e] * b.quads[i].e[e];
  }
  float sum = (sums.e[0] + sums.e[1]) + (sums.e[2] + sums.e[3]);
#pragma unroll
  for (int step = 1; step < kLanes; step *= 2) sum += __shfl_xor_sync(~0u, sum, step);
  return sum;
}

// x * rsqrt(sum x² + 1e-6) over K
template <int kQuads>
__device__ __forceinline__ void L2Normalise(Wide<kQuads>& x) {
  const float scale = InverseRoot(Dot(x, x) + kL2NormEps);
#pragma unroll
  for (auto& quad : x.quads) {
#pragma unroll
    for (float& e : quad.e) e *= scale;
  }
}

// One token, with s the state's row for an element v of the value:
//   s *= exp(g);  d = beta * (v - s · k);  s += d * k;  o = scale * s · q
template <int kQuads>
__device__ __forceinline__ float DeltaStep(Wide<kQuads>& s, const Wide<kQuads>& q,
                                           const Wide<kQuads>& k, float v, float decay, float beta,
                                           float scale) {
#pragma unroll
  for (auto& quad : s.quads) {
#pragma unroll
    for (float& e : quad.e) e *= decay;
  }
  const float d = beta * (v - Dot(s, k));
#pragma unroll
  for (int i = 0; i < kQuads; ++i) {
#pragma unroll
    for (int e = 0; e < kQuad; ++e) s.quads[i].e[e] += d * k.quads[i].e[e];
  }
  return scale * Dot(s, q);
}

// What a block works on.
struct Place {
  int64_t row;
  int head;  // value head
  int key_head;
  int first_column;  // the thread's first element of V; the others follow at distances of kGroups
  int64_t begin;     // tokens of the row
  int64_t end;

  __device__ int column(int c) const { return first_column + c * kGroups; }
};

__device__ __forceinline__ bool Leads() { return threadIdx.x % kLanes == 0; }

template <int kColumns>
__device__ void StoreZeros(const GatedDeltaRuleParams& p, const Place& at) {
  WithType(p.o_type, [&](auto element) {
    using O = decltype(element);
    for (int64_t t = at.begin; t < at.end; ++t) {
      O* o = static_cast<O*>(p.o) + t * p.o_stride + int64_t{at.head} * p.heads.value_dim;
      for (int c = 0; c < kColumns; ++c) {
        if (Leads() && at.column(c) < p.heads.value_dim) o[at.column(c)] = FromFloat<O>(0.0f);
      }
    }
  });
}

// Operands of one token, as they are in memory.
template <typename T, int kQuads, int kColumns>
struct Token {
  Slice<T, kQuads> q, k;
  T v[kColumns];
  float g, beta;
};

// Columns beyond V are computed on the last one's operands and dropped.
__device__ __forceinline__ int64_t ReadColumn(const GatedDeltaRuleParams& p, const Place& at,
                                              int c) {
  return min(at.column(c), p.heads.value_dim - 1);
}

template <typename T, int kQuads, int kColumns>
__device__ __forceinline__ Token<T, kQuads, kColumns> LoadToken(const GatedDeltaRuleParams& p,
                                                                const Place& at, int64_t t) {
  const int64_t key = int64_t{at.key_head} * p.heads.key_dim;
  const T* v = static_cast<const T*>(p.v) + t * p.v_stride + int64_t{at.head} * p.heads.value_dim;
  const int64_t gate = t * p.heads.value_heads + at.head;
  Token<T, kQuads, kColumns> token;
  token.q = LoadSlice<kQuads>(static_cast<const T*>(p.q) + t * p.q_stride + key, p.heads.key_dim);
  token.k = LoadSlice<kQuads>(static_cast<const T*>(p.k) + t * p.k_stride + key, p.heads.key_dim);
#pragma unroll
  for (int c = 0; c < kColumns; ++c) token.v[c] = v[ReadColumn(p, at, c)];
  token.g = p.g == nullptr ? 0.0f : p.g[gate];
  token.beta = p.beta == nullptr ? 1.0f : p.beta[gate];
  return token;
}

template <typename T, int kQuads, int kColumns>
__device__ __forceinline__ void RunToken(const GatedDeltaRuleParams& p, const Place& at, int64_t t,
                                         const Token<T, kQuads, kColumns>& token,
                                         Wide<kQuads> (&s)[kColumns]) {
  Wide<kQuads> q = Widen(token.q);
  Wide<kQuads> k = Widen(token.k);
  if (p.qk_l2norm) {
    L2Normalise(q);
    L2Normalise(k);
  }
  const float decay = expf(token.g);
  float o[kColumns];
#pragma unroll
  for (int c = 0; c < kColumns; ++c) {
    o[c] = DeltaStep(s[c], q, k, ToFloat(token.v[c]), decay, token.beta, p.scale);
  }
  if (!Leads()) return;
  const int64_t out = t * p.o_stride + int64_t{at.head} * p.heads.value_dim;
  WithType(p.o_type, [&](auto element) {
    using O = decltype(element);
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      if (at.column(c) < p.heads.value_dim) {
        static_cast<O*>(p.o)[out + at.column(c)] = FromFloat<O>(o[c]);
      }
    }
  });
}

// All tokens of the row, the next one's operands under way while one is computed.
template <typename T, int kQuads, int kColumns>
__device__ __forceinline__ void RunRow(const GatedDeltaRuleParams& p, const Place& at,
                                       Wide<kQuads> (&s)[kColumns]) {
  auto next = LoadToken<T, kQuads, kColumns>(p, at, at.begin);
  for (int64_t t = at.begin; t < at.end; ++t) {
    const auto token = next;
    if (t + 1 < at.end) next = LoadToken<T, kQuads, kColumns>(p, at, t + 1);
    RunToken(p, at, t, token, s);
  }
}

template <typename T, typename S, int kQuads, int kColumns>
__global__ void __launch_bounds__(kThreads, kQuads <= 4 ? 4 : 2)
    FusedRecurrentKernel(FusedRecurrentGatedDeltaRuleParams p, unsigned tiles) {
  const unsigned heads = static_cast<unsigned>(p.heads.value_heads);
  Place at;
  at.row = blockIdx.x / (tiles * heads);
  at.head = static_cast<int>(blockIdx.x / tiles % heads);
  at.key_head = at.head / (p.heads.value_heads / p.heads.key_heads);
  at.first_column =
      static_cast<int>(blockIdx.x % tiles * (kGroups * kColumns) + threadIdx.x / kLanes);
  at.begin = p.rows.offsets[at.row];
  at.end = p.rows.offsets[at.row + 1];
  const int64_t slot = p.rows.slot(at.row);
  const bool has_state = p.rows.has_state(at.row) && p.ssm.data != nullptr;
  if (at.begin == at.end) return;
  if (slot < 0) return StoreZeros<kColumns>(p, at);

  S* state = static_cast<S*>(p.ssm.data) + slot * p.ssm.slot_stride +
             int64_t{at.head} * p.heads.value_dim * p.heads.key_dim;
  Wide<kQuads> s[kColumns] = {};
  if (has_state) {
    Slice<S, kQuads> raw[kColumns];
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      raw[c] = LoadSlice<kQuads>(state + ReadColumn(p, at, c) * p.heads.key_dim, p.heads.key_dim);
    }
#pragma unroll
    for (int c = 0; c < kColumns; ++c) s[c] = Widen(raw[c]);
  }
  RunRow<T>(p, at, s);
  if (p.ssm.data == nullptr) return;
#pragma unroll
  for (int c = 0; c < kColumns; ++c) {
    if (at.column(c) >= p.heads.value_dim) continue;
    StoreSlice(s[c], state + int64_t{at.column(c)} * p.heads.key_dim, p.heads.key_dim);
  }
}

// Whether quads of `type` can be taken from `data` at multiples of `stride`.
bool Aligned(const void* data, DType type, int64_t stride) {
  return reinterpret_cast<uintptr_t>(data) % (kQuad * SizeOf(type)) == 0 && stride % kQuad == 0;
}

bool Valid(const FusedRecurrentGatedDeltaRuleParams& p) {
  const auto [key_heads, value_heads, key_dim, value_dim] = p.heads;
  return p.rows.count >= 0 && key_heads > 0 && value_heads > 0 && value_heads % key_heads == 0 &&
         key_dim > 0 && key_dim % 8 == 0 && key_dim <= 256 && value_dim > 0 &&
         p.ssm.type != DType::kFp16 && Aligned(p.q, p.io, p.q_stride) &&
         Aligned(p.k, p.io, p.k_stride) && Aligned(p.ssm.data, p.ssm.type, p.ssm.slot_stride);
}

// K of at most kQuads * 32 elements.
template <int kQuads, int kColumns>
cudaError_t Launch(const FusedRecurrentGatedDeltaRuleParams& p, cudaStream_t stream) {
  constexpr int kTile = kGroups * kColumns;
  const int64_t tiles = (p.heads.value_dim + kTile - 1) / kTile;
  if (p.rows.count > ((int64_t{1} << 31) - 1) / (tiles * p.heads.value_heads)) {
    return cudaErrorInvalidValue;
  }
  const auto blocks = static_cast<unsigned>(p.rows.count * tiles * p.heads.value_heads);
  return WithType(p.io, [&](auto io) {
    using T = decltype(io);
    const auto kernel = p.ssm.type == DType::kFp32
                            ? FusedRecurrentKernel<T, float, kQuads, kColumns>
                            : FusedRecurrentKernel<T, __nv_bfloat16, kQuads, kColumns>;
    kernel<<<blocks, kThreads, 0, stream>>>(p, static_cast<unsigned>(tiles));
    return cudaGetLastError();
  });
}

}  // namespace

cudaError_t FusedRecurrentGatedDeltaRule(const FusedRecurrentGatedDeltaRuleParams& p,
                                         cudaStream_t stream) {
  if (!Valid(p)) return cudaErrorInvalidValue;
  if (p.rows.count == 0) return cudaSuccess;
  if (p.heads.key_dim <= 64) return Launch<2, 4>(p, stream);
  if (p.heads.key_dim <= 128) return Launch<4, 2>(p, stream);
  return Launch<8, 1>(p, stream);
}

}  // namespace gdn::cuda
