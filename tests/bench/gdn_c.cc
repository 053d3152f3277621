#include "tests/bench/gdn_c.h"

#include <cmath>

#include "kernels/cuda/ops/chunk_gated_delta_rule.h"
#include "kernels/cuda/ops/fused_gdn_decode.h"

namespace gdn {
namespace {

float Scale(int dim) { return 1.0f / std::sqrt(static_cast<float>(dim)); }

StatePool States(void* data, int value_heads, int dim, bool bf16) {
  return {data, bf16 ? DType::kBf16 : DType::kFp32, int64_t{value_heads} * dim * dim};
}

ChunkGatedDeltaRuleParams Params(const GdnPrefill& c) {
  ChunkGatedDeltaRuleParams p;
  p.rows.count = c.rows;
  p.rows.offsets = c.offsets;
  p.heads = {c.key_heads, c.value_heads, c.dim, c.dim};
  p.io = p.o_type = DType::kBf16;
  p.q = c.q;
  p.k = c.k;
  p.v = c.v;
  p.q_stride = p.k_stride = int64_t{c.key_heads} * c.dim;
  p.v_stride = p.o_stride = int64_t{c.value_heads} * c.dim;
  p.g = c.g;
  p.beta = c.beta;
  p.scale = Scale(c.dim);
  p.qk_l2norm = true;
  p.ssm = States(c.state, c.value_heads, c.dim, c.bf16_state != 0);
  p.o = c.o;
  return p;
}

FusedGdnDecodeParams Params(const GdnDecode& c) {
  const int64_t conv_dim = (2 * int64_t{c.key_heads} + c.value_heads) * c.dim;
  FusedGdnDecodeParams p;
  p.rows.count = c.rows;
  p.rows.slots = c.slots;
  p.heads = {c.key_heads, c.value_heads, c.dim, c.dim};
  p.scale = Scale(c.dim);
  p.mixed_qkv = c.mixed;
  p.mixed_stride = c.mixed_stride;
  p.z = c.z;
  p.z_stride = c.z_stride;
  p.b = c.b;
  p.a = c.a;
  p.ba_stride = c.ba_stride;
  p.conv_weight = c.conv_weight;
  p.a_log = c.a_log;
  p.dt_bias = c.dt_bias;
  p.norm_weight = c.norm_weight;
  p.conv = {c.conv, DType::kBf16, (p.conv_width - 1) * conv_dim};
  p.ssm = States(c.ssm, c.value_heads, c.dim, c.bf16_state != 0);
  p.o = c.o;
  p.o_stride = int64_t{c.value_heads} * c.dim;
  p.faults = c.faults;
  return p;
}

}  // namespace
}  // namespace gdn

size_t GdnPrefillWorkspaceBytes(const GdnPrefill* p) {
  return gdn::cuda::ChunkGatedDeltaRuleWorkspaceBytes(gdn::Params(*p), p->tokens, p->chunks);
}

int GdnRunPrefill(const GdnPrefill* p, void* workspace, void* stream) {
  return gdn::cuda::ChunkGatedDeltaRule(gdn::Params(*p),
                                        {.count = p->chunks,
                                         .chunk_offsets = p->chunk_offsets,
                                         .chunk_indices = p->chunk_indices,
                                         .longest = p->longest},
                                        p->tokens, workspace, static_cast<cudaStream_t>(stream));
}

int GdnRunDecode(const GdnDecode* p, void* stream) {
  return gdn::cuda::FusedGdnDecode(gdn::Params(*p), static_cast<cudaStream_t>(stream));
}
