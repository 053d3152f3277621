// The seven steps of the chunked form in order, with fp32 between them.
#include <vector>

#include "kernels/chunk_index.h"
#include "kernels/cpu/oracle/ops.h"
#include "kernels/dtype.h"

namespace gdn::oracle {
namespace {

using Buffer = std::vector<float>;

// [T, width] of `type` as dense fp32.
Buffer Widen(const void* data, DType type, int64_t stride, int64_t tokens, int64_t width) {
  Buffer x(tokens * width);
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t i = 0; i < width; ++i) x[t * width + i] = Load(data, type, t * stride + i);
  }
  return x;
}

// q or k as [T, H, K] fp32, normalised if asked for.
Buffer Keys(const GatedDeltaRuleParams& p, const void* data, int64_t stride) {
  const int64_t width = int64_t{p.heads.key_heads} * p.heads.key_dim;
  Buffer x = Widen(data, p.io, stride, p.rows.tokens(), width);
  if (p.qk_l2norm) {
    L2Norm({.tokens = p.rows.tokens(),
            .heads = p.heads.key_heads,
            .dim = p.heads.key_dim,
            .x = x.data(),
            .x_stride = width,
            .y = x.data(),
            .y_stride = width,
            .eps = kL2NormEps});
  }
  return x;
}

// g or beta as [T, HV], `absent` where there is none.
Buffer PerHead(const GatedDeltaRuleParams& p, const float* data, float absent) {
  const int64_t size = p.rows.tokens() * p.heads.value_heads;
  return data == nullptr ? Buffer(size, absent) : Buffer(data, data + size);
}

}  // namespace

void ChunkGatedDeltaRule(const ChunkGatedDeltaRuleParams& p) {
  const auto [key_heads, heads, key_dim, value_dim] = p.heads;
  const ChunkIndex index({p.rows.offsets, static_cast<size_t>(p.rows.count) + 1});
  const Chunks chunks = index.chunks();
  const int64_t tokens = p.rows.tokens();
  const int64_t key_stride = int64_t{key_heads} * key_dim;
  const int64_t value_stride = int64_t{heads} * value_dim;

  const Buffer q = Keys(p, p.q, p.q_stride);
  const Buffer k = Keys(p, p.k, p.k_stride);
  const Buffer v = Widen(p.v, p.io, p.v_stride, tokens, value_stride);
  const Buffer beta = PerHead(p, p.beta, 1.0f);
  Buffer gamma = PerHead(p, p.g, 0.0f);
  Buffer a(tokens * heads * kChunk);
  Buffer w(tokens * heads * key_dim);
  Buffer u(tokens * value_stride);
  Buffer h(chunks.count * value_stride * key_dim);

  ChunkLocalCumsum({p.rows, chunks, heads, 1, gamma.data(), gamma.data()});
  ChunkScaledDotKkt({.rows = p.rows,
                     .chunks = chunks,
                     .heads = p.heads,
                     .k = k.data(),
                     .k_stride = key_stride,
                     .gamma = gamma.data(),
                     .beta = beta.data(),
                     .a = a.data()});
  SolveTril({p.rows, chunks, heads, a.data(), a.data()});
  RecomputeWU({.rows = p.rows,
               .chunks = chunks,
               .heads = p.heads,
               .k = k.data(),
               .k_stride = key_stride,
               .v = v.data(),
               .v_stride = value_stride,
               .gamma = gamma.data(),
               .beta = beta.data(),
               .inverse = a.data(),
               .w = w.data(),
               .u = u.data()});
  ChunkDeltaH({.rows = p.rows,
               .chunks = chunks,
               .heads = p.heads,
               .k = k.data(),
               .k_stride = key_stride,
               .w = w.data(),
               .u = u.data(),
               .gamma = gamma.data(),
               .ssm = p.ssm,
               .h = h.data(),
               .v_new = u.data()});
  ChunkO({.rows = p.rows,
          .chunks = chunks,
          .heads = p.heads,
          .o_type = p.o_type,
          .q = q.data(),
          .q_stride = key_stride,
          .k = k.data(),
          .k_stride = key_stride,
          .v_new = u.data(),
          .h = h.data(),
          .gamma = gamma.data(),
          .scale = p.scale,
          .o = p.o,
          .o_stride = p.o_stride});
}

}  // namespace gdn::oracle
