#include "kernels/cuda/dtype.cuh"
#include "kernels/cuda/fused_recurrent_gated_delta_rule.h"

namespace gdn::cuda {
namespace {

// A block takes a tile of V of one value head of one row. Eight lanes share a row of the state
// [V][K]: each holds every eighth quad of its K elements in registers, for kColumns rows. So a
// product with q or k is summed by three shuffles and nothing passes through shared memory.
constexpr int kThreads = 128;
constexpr int kLanes = 8;
constexpr int kGroups = kThreads / kLanes;
constexpr int kQuad = 4;

// kQuads quads of a vector over K.
template <int kQuads>
struct Slice {
  Pack<float, kQuad> quads[kQuads];
};

__device__ __forceinline__ float SumOverLanes(float x) {
#pragma unroll
  for (int step = 1; step < kLanes; step *= 2) x += __shfl_xor_sync(~0u, x, step);
  return x;
}

// The sum over K of a * b, in all lanes.
template <int kQuads>
__device__ __forceinline__ float Dot(const Slice<kQuads>& a, const Slice<kQuads>& b) {
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < kQuads; ++i) {
#pragma unroll
    for (int e = 0; e < kQuad; ++e) sum += a.quads[i].e[e] * b.quads[i].e[e];
  }
  return SumOverLanes(sum);
}

// Whether quads can be taken from `data` on.
template <typename T>
__device__ __forceinline__ bool Aligned(const T* data) {
  return reinterpret_cast<uintptr_t>(data) % (sizeof(T) * kQuad) == 0;
}

// The lane's quads of the vector of K elements at `data`; those beyond K are zero.
template <int kQuads, typename T>
__device__ __forceinline__ Slice<kQuads> LoadSlice(const T* data, int key_dim, bool aligned) {
  Slice<kQuads> slice = {};
#pragma unroll
  for (int i = 0; i < kQuads; ++i) {
    const int at = (i * kLanes + threadIdx.x % kLanes) * kQuad;
    if (at >= key_dim) continue;
    if (aligned) {
      slice.quads[i] = LoadPack<kQuad>(data + at);
    } else {
#pragma unroll
      for (int e = 0; e < kQuad; ++e) slice.quads[i].e[e] = ToFloat(data[at + e]);
    }
  }
  return slice;
}

template <int kQuads, typename T>
__device__ __forceinline__ void StoreSlice(const Slice<kQuads>& slice, T* data, int key_dim,
                                           bool aligned) {
#pragma unroll
  for (int i = 0; i < kQuads; ++i) {
    const int at = (i * kLanes + threadIdx.x % kLanes) * kQuad;
    if (at >= key_dim) continue;
    if (aligned) {
      StorePack(slice.quads[i], data + at);
    } else {
#pragma unroll
      for (int e = 0; e < kQuad; ++e) data[at + e] = FromFloat<T>(slice.quads[i].e[e]);
    }
  }
}

// x * rsqrt(sum x² + 1e-6) over K
template <int kQuads>
__device__ __forceinline__ void L2Normalise(Slice<kQuads>& x) {
  const float scale = rsqrtf(Dot(x, x) + kL2NormEps);
#pragma unroll
  for (auto& quad : x.quads) {
#pragma unroll
    for (float& e : quad.e) e *= scale;
  }
}

// One token, with s the state's row for an element v of the value:
//   s *= exp(g);  d = beta * (v - s · k);  s += d * k;  o = scale * s · q
template <int kQuads>
__device__ __forceinline__ float DeltaStep(Slice<kQuads>& s, const Slice<kQuads>& q,
                                           const Slice<kQuads>& k, float v, float decay, float beta,
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
  int column;     // the thread's first element of V; the others follow at distances of kGroups
  int64_t begin;  // tokens of the row
  int64_t end;
};

__device__ __forceinline__ bool Leads() { return threadIdx.x % kLanes == 0; }

template <int kColumns>
__device__ void StoreZeros(const GatedDeltaRuleParams& p, const Place& at) {
  WithType(p.o_type, [&](auto element) {
    using O = decltype(element);
    for (int64_t t = at.begin; t < at.end; ++t) {
      O* o = static_cast<O*>(p.o) + t * p.o_stride + int64_t{at.head} * p.heads.value_dim;
      for (int c = 0; c < kColumns; ++c) {
        const int column = at.column + c * kGroups;
        if (Leads() && column < p.heads.value_dim) o[column] = FromFloat<O>(0.0f);
      }
    }
  });
}

template <int kQuads, int kColumns>
__device__ void LoadState(const GatedDeltaRuleParams& p, const Place& at, int64_t offset,
                          Slice<kQuads> (&s)[kColumns]) {
  WithType(p.ssm.type, [&](auto element) {
    using S = decltype(element);
    const S* state = static_cast<const S*>(p.ssm.data) + offset;
    const bool aligned = Aligned(state);
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      const int64_t column = at.column + c * kGroups;
      if (column >= p.heads.value_dim) continue;
      s[c] = LoadSlice<kQuads>(state + column * p.heads.key_dim, p.heads.key_dim, aligned);
    }
  });
}

template <int kQuads, int kColumns>
__device__ void StoreState(const GatedDeltaRuleParams& p, const Place& at, int64_t offset,
                           const Slice<kQuads> (&s)[kColumns]) {
  WithType(p.ssm.type, [&](auto element) {
    using S = decltype(element);
    S* state = static_cast<S*>(p.ssm.data) + offset;
    const bool aligned = Aligned(state);
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      const int64_t column = at.column + c * kGroups;
      if (column >= p.heads.value_dim) continue;
      StoreSlice(s[c], state + column * p.heads.key_dim, p.heads.key_dim, aligned);
    }
  });
}

// Operands of one token.
template <int kQuads, int kColumns>
struct Token {
  Slice<kQuads> q, k;
  float v[kColumns];
  float g, beta;
};

template <typename T, int kQuads, int kColumns>
__device__ __forceinline__ Token<kQuads, kColumns> LoadToken(const GatedDeltaRuleParams& p,
                                                             const Place& at, int64_t t) {
  const int64_t key = int64_t{at.key_head} * p.heads.key_dim;
  const T* q = static_cast<const T*>(p.q) + t * p.q_stride + key;
  const T* k = static_cast<const T*>(p.k) + t * p.k_stride + key;
  const T* v = static_cast<const T*>(p.v) + t * p.v_stride + int64_t{at.head} * p.heads.value_dim;
  const int64_t gate = t * p.heads.value_heads + at.head;
  Token<kQuads, kColumns> token;
  token.q = LoadSlice<kQuads>(q, p.heads.key_dim, Aligned(q));
  token.k = LoadSlice<kQuads>(k, p.heads.key_dim, Aligned(k));
#pragma unroll
  for (int c = 0; c < kColumns; ++c) {
    const int column = at.column + c * kGroups;
    token.v[c] = column < p.heads.value_dim ? ToFloat(v[column]) : 0.0f;
  }
  token.g = p.g == nullptr ? 0.0f : p.g[gate];
  token.beta = p.beta == nullptr ? 1.0f : p.beta[gate];
  return token;
}

template <int kQuads, int kColumns>
__device__ __forceinline__ void RunToken(const GatedDeltaRuleParams& p, const Place& at, int64_t t,
                                         Token<kQuads, kColumns>& token,
                                         Slice<kQuads> (&s)[kColumns]) {
  if (p.qk_l2norm) {
    L2Normalise(token.q);
    L2Normalise(token.k);
  }
  const float decay = expf(token.g);
  const int64_t out = t * p.o_stride + int64_t{at.head} * p.heads.value_dim;
#pragma unroll
  for (int c = 0; c < kColumns; ++c) {
    const int column = at.column + c * kGroups;
    const float o = DeltaStep(s[c], token.q, token.k, token.v[c], decay, token.beta, p.scale);
    if (column >= p.heads.value_dim || !Leads()) continue;
    WithType(p.o_type, [&](auto element) {
      using O = decltype(element);
      static_cast<O*>(p.o)[out + column] = FromFloat<O>(o);
    });
  }
}

// All tokens of the row, the next one's operands under way while one is computed.
template <typename T, int kQuads, int kColumns>
__device__ __forceinline__ void RunRow(const GatedDeltaRuleParams& p, const Place& at,
                                       Slice<kQuads> (&s)[kColumns]) {
  auto next = LoadToken<T, kQuads, kColumns>(p, at, at.begin);
  for (int64_t t = at.begin; t < at.end; ++t) {
    auto token = next;
    if (t + 1 < at.end) next = LoadToken<T, kQuads, kColumns>(p, at, t + 1);
    RunToken(p, at, t, token, s);
  }
}

template <typename T, int kQuads, int kColumns>
__global__ void __launch_bounds__(kThreads)
    FusedRecurrentKernel(FusedRecurrentGatedDeltaRuleParams p, unsigned tiles) {
  const unsigned heads = static_cast<unsigned>(p.heads.value_heads);
  Place at;
  at.row = blockIdx.x / (tiles * heads);
  at.head = static_cast<int>(blockIdx.x / tiles % heads);
  at.key_head = at.head / (p.heads.value_heads / p.heads.key_heads);
  at.column = static_cast<int>(blockIdx.x % tiles * (kGroups * kColumns) + threadIdx.x / kLanes);
  at.begin = p.rows.offsets[at.row];
  at.end = p.rows.offsets[at.row + 1];
  if (at.begin == at.end) return;
  const int64_t slot = p.rows.slot(at.row);
  if (slot < 0) return StoreZeros<kColumns>(p, at);

  const int64_t elements = int64_t{p.heads.value_dim} * p.heads.key_dim;
  const int64_t offset = slot * p.ssm.slot_stride + at.head * elements;
  Slice<kQuads> s[kColumns] = {};
  if (p.ssm.data != nullptr && p.rows.has_state(at.row)) LoadState(p, at, offset, s);
  RunRow<T>(p, at, s);
  if (p.ssm.data != nullptr) StoreState(p, at, offset, s);
}

bool Valid(const FusedRecurrentGatedDeltaRuleParams& p) {
  const auto [key_heads, value_heads, key_dim, value_dim] = p.heads;
  return p.rows.count >= 0 && key_heads > 0 && value_heads > 0 && value_heads % key_heads == 0 &&
         key_dim > 0 && key_dim % 8 == 0 && key_dim <= 256 && value_dim > 0;
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
    FusedRecurrentKernel<decltype(io), kQuads, kColumns>
        <<<blocks, kThreads, 0, stream>>>(p, static_cast<unsigned>(tiles));
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
