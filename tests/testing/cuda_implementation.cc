// The CUDA ops behind the host's parameters: operands are copied to the device and results back.

#include "kernels/cuda/backend/projection.h"
#include "kernels/cuda/ops/ops.h"
#include "tests/testing/device_call.h"
#include "tests/testing/implementation.h"

namespace gdn::test {
namespace {

Extent Columns(int64_t tokens, int heads, int dim, int64_t stride) {
  return {tokens, int64_t{heads} * dim, stride};
}

void L2Norm(const L2NormParams& host) {
  L2NormParams p = host;
  DeviceCall call;
  call.In(p.x, p.x_type, Columns(p.tokens, p.heads, p.dim, p.x_stride));
  call.Out(p.y, p.y_type, Columns(p.tokens, p.heads, p.dim, p.y_stride));
  call.Run([&](cudaStream_t stream) { return cuda::L2Norm(p, stream); });
}

void ChunkLocalCumsum(const ChunkLocalCumsumParams& host) {
  ChunkLocalCumsumParams p = host;
  DeviceCall call;
  const Extent columns = Dense(host.rows.tokens(), int64_t{p.heads} * p.dim);
  call.In(p.g, columns);
  call.Out(p.gamma, columns);
  call.Bind(p.rows);
  p.chunks = call.ChunksOf(host.rows);
  call.Run([&](cudaStream_t stream) { return cuda::ChunkLocalCumsum(p, stream); });
}

void ChunkScaledDotKkt(const ChunkScaledDotKktParams& host) {
  ChunkScaledDotKktParams p = host;
  DeviceCall call;
  const int64_t tokens = host.rows.tokens();
  const Extent per_head = Dense(tokens, p.heads.value_heads);
  call.In(p.k, p.io, Columns(tokens, p.heads.key_heads, p.heads.key_dim, p.k_stride));
  call.In(p.gamma, per_head);
  call.In(p.beta, per_head);
  call.Out(p.a, Dense(tokens, int64_t{p.heads.value_heads} * kChunk));
  call.Bind(p.rows);
  p.chunks = call.ChunksOf(host.rows);
  call.Run([&](cudaStream_t stream) { return cuda::ChunkScaledDotKkt(p, stream); });
}

void SolveTril(const SolveTrilParams& host) {
  SolveTrilParams p = host;
  DeviceCall call;
  const Extent squares = Dense(host.rows.tokens(), int64_t{p.value_heads} * kChunk);
  call.In(p.a, squares);
  call.Out(p.inverse, squares);
  call.Bind(p.rows);
  p.chunks = call.ChunksOf(host.rows);
  call.Run([&](cudaStream_t stream) { return cuda::SolveTril(p, stream); });
}

void RecomputeWU(const RecomputeWUParams& host) {
  RecomputeWUParams p = host;
  DeviceCall call;
  const int64_t tokens = host.rows.tokens();
  const auto [key_heads, heads, key_dim, value_dim] = p.heads;
  call.In(p.k, p.io, Columns(tokens, key_heads, key_dim, p.k_stride));
  call.In(p.v, p.io, Columns(tokens, heads, value_dim, p.v_stride));
  call.In(p.gamma, Dense(tokens, heads));
  call.In(p.beta, Dense(tokens, heads));
  call.In(p.inverse, Dense(tokens, int64_t{heads} * kChunk));
  call.Out(p.w, p.mid, Dense(tokens, int64_t{heads} * key_dim));
  call.Out(p.u, p.mid, Dense(tokens, int64_t{heads} * value_dim));
  call.Bind(p.rows);
  p.chunks = call.ChunksOf(host.rows);
  call.Run([&](cudaStream_t stream) { return cuda::RecomputeWU(p, stream); });
}

void ChunkDeltaH(const ChunkDeltaHParams& host) {
  ChunkDeltaHParams p = host;
  DeviceCall call;
  const int64_t tokens = host.rows.tokens();
  const auto [key_heads, heads, key_dim, value_dim] = p.heads;
  const int64_t state = int64_t{heads} * value_dim * key_dim;
  call.In(p.k, p.io, Columns(tokens, key_heads, key_dim, p.k_stride));
  call.In(p.w, p.mid, Dense(tokens, int64_t{heads} * key_dim));
  call.In(p.u, p.mid, Dense(tokens, int64_t{heads} * value_dim));
  call.In(p.gamma, Dense(tokens, heads));
  p.chunks = call.ChunksOf(host.rows);
  call.InOut(p.h, p.mid, Dense(p.chunks.count, state));
  call.InOut(p.v_new, p.mid, Dense(tokens, int64_t{heads} * value_dim));
  call.Bind(p.ssm, host.rows, state);
  call.Bind(p.rows);
  call.Run([&](cudaStream_t stream) { return cuda::ChunkDeltaH(p, stream); });
}

void ChunkO(const ChunkOParams& host) {
  ChunkOParams p = host;
  DeviceCall call;
  const int64_t tokens = host.rows.tokens();
  const auto [key_heads, heads, key_dim, value_dim] = p.heads;
  call.In(p.q, p.io, Columns(tokens, key_heads, key_dim, p.q_stride));
  call.In(p.k, p.io, Columns(tokens, key_heads, key_dim, p.k_stride));
  call.In(p.v_new, p.mid, Dense(tokens, int64_t{heads} * value_dim));
  p.chunks = call.ChunksOf(host.rows);
  call.In(p.h, p.mid, Dense(p.chunks.count, int64_t{heads} * value_dim * key_dim));
  call.In(p.gamma, Dense(tokens, heads));
  call.Out(p.o, p.o_type, Columns(tokens, heads, value_dim, p.o_stride));
  call.Bind(p.rows);
  call.Run([&](cudaStream_t stream) { return cuda::ChunkO(p, stream); });
}

// The operands that both forms of the delta rule have.
void BindRule(DeviceCall& call, const GatedDeltaRuleParams& host, GatedDeltaRuleParams& p) {
  const int64_t tokens = host.rows.tokens();
  const auto [key_heads, heads, key_dim, value_dim] = p.heads;
  call.In(p.q, p.io, Columns(tokens, key_heads, key_dim, p.q_stride));
  call.In(p.k, p.io, Columns(tokens, key_heads, key_dim, p.k_stride));
  call.In(p.v, p.io, Columns(tokens, heads, value_dim, p.v_stride));
  call.In(p.g, Dense(tokens, heads));
  call.In(p.beta, Dense(tokens, heads));
  call.Out(p.o, p.o_type, Columns(tokens, heads, value_dim, p.o_stride));
  call.Bind(p.ssm, host.rows, int64_t{heads} * value_dim * key_dim);
  call.Bind(p.rows);
}

void ChunkGatedDeltaRule(const ChunkGatedDeltaRuleParams& host) {
  ChunkGatedDeltaRuleParams p = host;
  DeviceCall call;
  BindRule(call, host, p);
  const int64_t tokens = host.rows.tokens();
  const Chunks chunks = call.ChunksOf(host.rows);
  void* workspace = call.Scratch(cuda::ChunkGatedDeltaRuleWorkspaceBytes(p, tokens, chunks.count));
  call.Run([&](cudaStream_t stream) {
    return cuda::ChunkGatedDeltaRule(p, chunks, tokens, workspace, stream);
  });
}

void FusedRecurrentGatedDeltaRule(const FusedRecurrentGatedDeltaRuleParams& host) {
  FusedRecurrentGatedDeltaRuleParams p = host;
  DeviceCall call;
  BindRule(call, host, p);
  call.Run([&](cudaStream_t stream) { return cuda::FusedRecurrentGatedDeltaRule(p, stream); });
}

// The operands that both forms of the convolution have.
void BindConv(DeviceCall& call, int64_t tokens, const Rows& host, CausalConv1dParams& p) {
  call.In(p.x, p.io, {tokens, p.channels, p.x_stride});
  call.In(p.weight, Dense(p.channels, p.width));
  call.In(p.bias, Dense(1, p.channels));
  call.Out(p.y, p.io, {tokens, p.channels, p.y_stride});
  call.Bind(p.conv, host, (p.width - 1) * p.channels);
}

void CausalConv1dFn(const CausalConv1dFnParams& host) {
  CausalConv1dFnParams p = host;
  DeviceCall call;
  BindConv(call, host.rows.tokens(), host.rows, p);
  const Chunks chunks = call.ChunksOf(host.rows);
  call.Bind(p.rows);
  call.Run([&](cudaStream_t stream) { return cuda::CausalConv1dFn(p, chunks, stream); });
}

void CausalConv1dUpdate(const CausalConv1dUpdateParams& host) {
  CausalConv1dUpdateParams p = host;
  DeviceCall call;
  BindConv(call, host.rows.count, host.rows, p);
  call.Bind(p.rows);
  p.rows.offsets = nullptr;  // not looked at
  call.Run([&](cudaStream_t stream) { return cuda::CausalConv1dUpdate(p, stream); });
}

void BindGating(DeviceCall& call, FusedGdnGatingParams& p) {
  if (p.tokens == 0) return;
  call.In(p.a, p.io, {p.tokens, p.value_heads, p.a_stride});
  call.In(p.b, p.io, {p.tokens, p.value_heads, p.b_stride});
  call.In(p.a_log, Dense(1, p.value_heads));
  call.In(p.dt_bias, Dense(1, p.value_heads));
  call.Out(p.g, Dense(p.tokens, p.value_heads));
  call.Out(p.beta, Dense(p.tokens, p.value_heads));
}

void FusedGdnGating(const FusedGdnGatingParams& host) {
  FusedGdnGatingParams p = host;
  DeviceCall call;
  BindGating(call, p);
  call.Run([&](cudaStream_t stream) { return cuda::FusedGdnGating(p, stream); });
}

void FusedConvGating(const FusedConvGatingParams& host) {
  FusedConvGatingParams p = host;
  DeviceCall call;
  BindConv(call, host.conv.rows.tokens(), host.conv.rows, p.conv);
  BindGating(call, p.gating);
  const Chunks chunks = call.ChunksOf(host.conv.rows);
  call.Bind(p.conv.rows);
  call.Run([&](cudaStream_t stream) { return cuda::FusedConvGating(p, chunks, stream); });
}

void RmsNormGated(const RmsNormGatedParams& host) {
  RmsNormGatedParams p = host;
  DeviceCall call;
  call.In(p.x, p.x_type, Columns(p.tokens, p.value_heads, p.value_dim, p.x_stride));
  call.In(p.z, p.io, Columns(p.tokens, p.value_heads, p.value_dim, p.z_stride));
  call.In(p.weight, Dense(1, p.value_dim));
  call.Out(p.y, p.io, Columns(p.tokens, p.value_heads, p.value_dim, p.y_stride));
  call.Run([&](cudaStream_t stream) { return cuda::RmsNormGated(p, stream); });
}

void Projection(const ProjectionParams& host) {
  ProjectionParams p = host;
  DeviceCall call;
  call.In(p.x, p.io, {p.tokens, p.in, p.x_stride});
  call.In(p.w, p.io, Dense(p.out, p.in));
  call.Out(p.y, p.io, {p.tokens, p.out, p.y_stride});
  const auto projection = cuda::Projection::Make(p.io, p.in, p.out);
  ASSERT_TRUE(projection.ok()) << projection.status();
  call.Run([&](cudaStream_t stream) { return (*projection)->Run(p, stream); });
}

void ChunkIndices(const ChunkIndicesParams& host) {
  ChunkIndicesParams p = host;
  DeviceCall call;
  const int64_t chunks =
      ChunkIndex({host.offsets, static_cast<size_t>(host.rows) + 1}).chunks().count;
  call.In(p.offsets, host.rows + 1);
  call.Out(p.lengths, host.rows);
  call.Out(p.chunk_offsets, host.rows + 1);
  call.Out(p.chunk_indices, 2 * chunks);
  call.Run([&](cudaStream_t stream) { return cuda::ChunkIndices(p, stream); });
}

int Processors() {
  int processors = 0;
  cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, 0);
  return processors;
}

}  // namespace

const Implementation kCuda = {"cuda",
                              L2Norm,
                              ChunkLocalCumsum,
                              ChunkScaledDotKkt,
                              SolveTril,
                              RecomputeWU,
                              ChunkDeltaH,
                              ChunkO,
                              ChunkGatedDeltaRule,
                              FusedRecurrentGatedDeltaRule,
                              CausalConv1dFn,
                              CausalConv1dUpdate,
                              FusedGdnGating,
                              FusedConvGating,
                              RmsNormGated,
                              Projection,
                              ChunkIndices,
                              DeviceCall::Unavailable,
                              Processors};

}  // namespace gdn::test
