// The gated delta rule token by token. The state is walked once: a few of its rows (value columns)
// at a time are held in fp32 while all tokens of a block pass over them.
#pragma once

#include "kernels/cpu/isa/pointwise.h"
#include "kernels/ops/operands.h"

namespace gdn::cpu {
namespace {

inline constexpr int64_t kStateRows = 4;  // of [V, K], at a time
inline constexpr int kTokenBlock = 16;    // tokens whose q, k, v and o are held in fp32

// Operands of a block of tokens in fp32.
struct TokenBlock {
  int tokens;
  float q[kTokenBlock][kMaxHeadDim];  // times scale
  float k[kTokenBlock][kMaxHeadDim];
  float v[kTokenBlock][kMaxHeadDim];
  float o[kTokenBlock][kMaxHeadDim];
  float decay[kTokenBlock];  // exp(g)
  float beta[kTokenBlock];
  float kq[kTokenBlock];  // k · q
};

inline float Dot(const float* x, const float* y, int n) {
  VecF sum = {};
  for (int64_t i = 0; i < n; i += kLanes) sum += LoadV(x + i) * LoadV(y + i);
  return SumLanes(sum);
}

// q, k and v of token t in fp32, normalised and scaled as the task says.
template <typename T>
inline void LoadToken(const HeadTask& t, int64_t token, float* q, float* k, float* v) {
  const T* from_q = static_cast<const T*>(t.q) + token * t.q_stride;
  const T* from_k = static_cast<const T*>(t.k) + token * t.k_stride;
  if (t.qk_l2norm) {
    L2Normalise(q, from_q, t.key_dim, kL2NormEps);
    L2Normalise(k, from_k, t.key_dim, kL2NormEps);
  } else {
    Copy(q, from_q, t.key_dim);
    Copy(k, from_k, t.key_dim);
  }
  for (int64_t i = 0; i < t.key_dim; i += kLanes) StoreV(q + i, LoadV(q + i) * t.scale);
  Copy(v, static_cast<const T*>(t.v) + token * t.v_stride, t.value_dim);
}

inline void LoadBlock(const HeadTask& t, int64_t begin, TokenBlock& b) {
  b.tokens = static_cast<int>(t.tokens - begin < kTokenBlock ? t.tokens - begin : kTokenBlock);
  for (int64_t i = 0; i < b.tokens; ++i) {
    const int64_t token = begin + i;
    WithType(t.io, [&]<typename T>(TypeTag<T>) { LoadToken<T>(t, token, b.q[i], b.k[i], b.v[i]); });
    b.decay[i] = t.g == nullptr ? 1.0f : Exp(t.g[token * t.gate_stride]);
    b.beta[i] = t.beta == nullptr ? 1.0f : t.beta[token * t.gate_stride];
    b.kq[i] = Dot(b.k[i], b.q[i], t.key_dim);
  }
}

// One token over rows [row, row + kStateRows) of the state, s [kStateRows, K]:
//   kv = decay * (s · k);  d = beta * (v - kv);  o = decay * (s · q) + d * (k · q)
//   s = decay * s + d * k
inline void FoldToken(TokenBlock& b, int64_t i, int64_t row, int64_t key_dim, float* s) {
  VecF sk[kStateRows] = {}, sq[kStateRows] = {};
  for (int64_t c = 0; c < key_dim; c += kLanes) {
    const VecF k = LoadV(b.k[i] + c), q = LoadV(b.q[i] + c);
    for (int64_t r = 0; r < kStateRows; ++r) {
      const VecF x = LoadV(s + r * key_dim + c);
      sk[r] += x * k;
      sq[r] += x * q;
    }
  }
  float d[kStateRows];
  for (int64_t r = 0; r < kStateRows; ++r) {
    const float kv = b.decay[i] * SumLanes(sk[r]);
    d[r] = b.beta[i] * (b.v[i][row + r] - kv);
    b.o[i][row + r] = b.decay[i] * SumLanes(sq[r]) + d[r] * b.kq[i];
  }
  for (int64_t c = 0; c < key_dim; c += kLanes) {
    const VecF k = LoadV(b.k[i] + c);
    for (int64_t r = 0; r < kStateRows; ++r) {
      float* x = s + r * key_dim + c;
      StoreV(x, b.decay[i] * LoadV(x) + d[r] * k);
    }
  }
}

// For writing: a state is in memory, further away than the hardware looks ahead by itself.
template <typename S>
inline void PrefetchRows(const S* rows, int64_t n) {
  const auto* bytes = reinterpret_cast<const char*>(rows);
  for (int64_t i = 0; i < n * int64_t{sizeof(S)}; i += 64) __builtin_prefetch(bytes + i, 1);
}

template <typename S>
inline void FoldBlock(const HeadTask& t, TokenBlock& b, S* state, bool load) {
  alignas(64) float s[kStateRows * kMaxHeadDim];
  const int64_t n = kStateRows * t.key_dim;
  for (int64_t row = 0; row < t.value_dim; row += kStateRows) {
    if (load) {
      PrefetchRows(state + (row + 2 * kStateRows) * int64_t{t.key_dim}, n);
      Copy(s, state + row * t.key_dim, n);
    } else {
      for (int64_t i = 0; i < n; i += kLanes) StoreV(s + i, VecF{});
    }
    for (int64_t i = 0; i < b.tokens; ++i) FoldToken(b, i, row, t.key_dim, s);
    Copy(state + row * t.key_dim, s, n);
  }
}

// scratch: [V, K], used where the task has no state or tokens enough to keep it in fp32 meanwhile.
inline void Recurrent(const HeadTask& t, float* scratch) {
  TokenBlock b;
  const int64_t elements = int64_t{t.value_dim} * t.key_dim;
  const bool direct = t.state != nullptr && (t.state_type == DType::kFp32 || t.tokens == 1);
  void* state = direct ? t.state : scratch;
  const DType type = direct ? t.state_type : DType::kFp32;
  bool load = t.state != nullptr && t.load_state;
  if (!direct && load) ToFloat(scratch, t.state, t.state_type, elements);
  for (int64_t begin = 0; begin < t.tokens; begin += b.tokens) {
    LoadBlock(t, begin, b);
    WithStateType(type,
                  [&]<typename S>(TypeTag<S>) { FoldBlock(t, b, static_cast<S*>(state), load); });
    load = true;
    for (int64_t i = 0; i < b.tokens; ++i) {
      const int64_t bytes = t.o_type == DType::kFp32 ? 4 : 2;
      FromFloat(static_cast<char*>(t.o) + (begin + i) * t.o_stride * bytes, t.o_type, b.o[i],
                t.value_dim);
    }
  }
  if (!direct && t.state != nullptr) FromFloat(t.state, t.state_type, scratch, elements);
}

}  // namespace
}  // namespace gdn::cpu
