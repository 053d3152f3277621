#include "kernels/cuda/device/dtype.cuh"
#include "kernels/cuda/ops/chunk_delta_h.h"
#include "kernels/cuda/ops/chunk_gated_delta_rule.h"
#include "kernels/cuda/ops/chunk_local_cumsum.h"
#include "kernels/cuda/ops/chunk_o.h"
#include "kernels/cuda/ops/chunk_scaled_dot_kkt.h"
#include "kernels/cuda/ops/l2norm.h"
#include "kernels/cuda/ops/recompute_w_u.h"
#include "kernels/cuda/ops/solve_tril.h"
#include "kernels/cuda/prefill/chunk_sm90.h"

namespace gdn::cuda {
namespace {

// What the general steps hand one another.
struct Buffers {
  float* q = nullptr;      // [T, H, K] normalised
  float* k = nullptr;      // [T, H, K] normalised
  float* v = nullptr;      // [T, HV, V] of 16 bits, widened to go with them
  float* gamma = nullptr;  // [T, HV]
  float* ones = nullptr;   // [T, HV]: beta where there is none
  float* a = nullptr;      // [T, HV, kChunk], then its inverse
  float* w = nullptr;      // [T, HV, K]
  float* u = nullptr;      // [T, HV, V], then v_new
  float* h = nullptr;      // [NT, HV, V, K]
};

// Lays the buffers out from `workspace` on; *bytes becomes their size.
Buffers LayOut(const ChunkGatedDeltaRuleParams& p, int64_t tokens, int64_t chunks, void* workspace,
               size_t* bytes) {
  constexpr size_t kAlignment = 256;
  *bytes = 0;
  const auto floats = [&](int64_t elements) {
    auto* taken = static_cast<unsigned char*>(workspace) + *bytes;
    *bytes += (elements * sizeof(float) + kAlignment - 1) / kAlignment * kAlignment;
    return reinterpret_cast<float*>(taken);
  };
  const int64_t key_width = int64_t{p.heads.key_heads} * p.heads.key_dim;
  const int64_t token_heads = tokens * p.heads.value_heads;
  Buffers b;
  if (p.qk_l2norm) {
    b.q = floats(tokens * key_width);
    b.k = floats(tokens * key_width);
    if (p.io != DType::kFp32) b.v = floats(token_heads * p.heads.value_dim);
  }
  b.gamma = floats(token_heads);
  b.ones = floats(token_heads);
  b.a = floats(token_heads * kChunk);
  b.w = floats(token_heads * p.heads.key_dim);
  b.u = floats(token_heads * p.heads.value_dim);
  b.h = floats(chunks * p.heads.value_heads * p.heads.value_dim * p.heads.key_dim);
  return b;
}

__global__ void FillKernel(float* x, int64_t count, float value) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i < count) x[i] = value;
}

cudaError_t Fill(float* x, int64_t count, float value, cudaStream_t stream) {
  constexpr int kThreads = 256;
  FillKernel<<<static_cast<unsigned>((count + kThreads - 1) / kThreads), kThreads, 0, stream>>>(
      x, count, value);
  return cudaGetLastError();
}

// to [T, width] = from [T, stride]
template <typename T>
__global__ void WidenKernel(const T* from, int64_t stride, float* to, int64_t width) {
  const int64_t row = blockIdx.x;
  for (int64_t i = threadIdx.x; i < width; i += blockDim.x) {
    to[row * width + i] = ToFloat(from[row * stride + i]);
  }
}

cudaError_t WidenValues(const ChunkGatedDeltaRuleParams& p, float* v, int64_t tokens,
                        cudaStream_t stream) {
  return WithType(p.io, [&](auto t) {
    WidenKernel<<<static_cast<unsigned>(tokens), 256, 0, stream>>>(
        static_cast<const decltype(t)*>(p.v), p.v_stride, v,
        int64_t{p.heads.value_heads} * p.heads.value_dim);
    return cudaGetLastError();
  });
}

cudaError_t Normalize(const ChunkGatedDeltaRuleParams& p, const void* x, int64_t stride, float* y,
                      int64_t tokens, cudaStream_t stream) {
  return L2Norm({.tokens = tokens,
                 .heads = p.heads.key_heads,
                 .dim = p.heads.key_dim,
                 .x_type = p.io,
                 .x = x,
                 .x_stride = stride,
                 .y = y,
                 .y_stride = int64_t{p.heads.key_heads} * p.heads.key_dim,
                 .eps = kL2NormEps},
                stream);
}

// gamma, q, k, v and beta, as the steps after take them; changes `p` to name them.
cudaError_t Prepare(ChunkGatedDeltaRuleParams& p, const Chunks& chunks, int64_t tokens,
                    const Buffers& b, cudaStream_t stream) {
  const int64_t token_heads = tokens * p.heads.value_heads;
  cudaError_t error =
      p.g == nullptr
          ? Fill(b.gamma, token_heads, 0.0f, stream)
          : ChunkLocalCumsum({p.rows, chunks, p.heads.value_heads, 1, p.g, b.gamma}, stream);
  if (error == cudaSuccess && p.beta == nullptr) {
    error = Fill(b.ones, token_heads, 1.0f, stream);
    p.beta = b.ones;
  }
  if (!p.qk_l2norm) return error;
  if (error == cudaSuccess) error = Normalize(p, p.q, p.q_stride, b.q, tokens, stream);
  if (error == cudaSuccess) error = Normalize(p, p.k, p.k_stride, b.k, tokens, stream);
  if (error == cudaSuccess && b.v != nullptr) {
    error = WidenValues(p, b.v, tokens, stream);
    p.v = b.v;
    p.v_stride = int64_t{p.heads.value_heads} * p.heads.value_dim;
  }
  p.io = DType::kFp32;
  p.q = b.q;
  p.k = b.k;
  p.q_stride = p.k_stride = int64_t{p.heads.key_heads} * p.heads.key_dim;
  return error;
}

// The steps one by one, for what the tensor cores' kernels do not take.
cudaError_t Staged(ChunkGatedDeltaRuleParams p, const Chunks& chunks, int64_t tokens,
                   void* workspace, cudaStream_t stream) {
  size_t bytes;
  const Buffers b = LayOut(p, tokens, chunks.count, workspace, &bytes);
  cudaError_t error = Prepare(p, chunks, tokens, b, stream);
  const auto then = [&](auto step, const auto& params) {
    if (error == cudaSuccess) error = step(params, stream);
  };
  then(ChunkScaledDotKkt, ChunkScaledDotKktParams{.rows = p.rows,
                                                  .chunks = chunks,
                                                  .heads = p.heads,
                                                  .io = p.io,
                                                  .k = p.k,
                                                  .k_stride = p.k_stride,
                                                  .gamma = b.gamma,
                                                  .beta = p.beta,
                                                  .a = b.a});
  then(SolveTril, SolveTrilParams{p.rows, chunks, p.heads.value_heads, b.a, b.a});
  then(RecomputeWU, RecomputeWUParams{.rows = p.rows,
                                      .chunks = chunks,
                                      .heads = p.heads,
                                      .io = p.io,
                                      .k = p.k,
                                      .k_stride = p.k_stride,
                                      .v = p.v,
                                      .v_stride = p.v_stride,
                                      .gamma = b.gamma,
                                      .beta = p.beta,
                                      .inverse = b.a,
                                      .w = b.w,
                                      .u = b.u});
  then(ChunkDeltaH, ChunkDeltaHParams{.rows = p.rows,
                                      .chunks = chunks,
                                      .heads = p.heads,
                                      .io = p.io,
                                      .k = p.k,
                                      .k_stride = p.k_stride,
                                      .w = b.w,
                                      .u = b.u,
                                      .gamma = b.gamma,
                                      .ssm = p.ssm,
                                      .h = b.h,
                                      .v_new = b.u});
  then(ChunkO, ChunkOParams{.rows = p.rows,
                            .chunks = chunks,
                            .heads = p.heads,
                            .io = p.io,
                            .o_type = p.o_type,
                            .q = p.q,
                            .q_stride = p.q_stride,
                            .k = p.k,
                            .k_stride = p.k_stride,
                            .v_new = b.u,
                            .h = b.h,
                            .gamma = b.gamma,
                            .scale = p.scale,
                            .o = p.o,
                            .o_stride = p.o_stride});
  return error;
}

Fusing FusingOf(const ChunkGatedDeltaRuleParams& p) {
  if (p.o_type != p.io) return Fusing::kNone;
  return p.ssm.data != nullptr && p.ssm.type == DType::kFp32 ? Fusing::kHalves : Fusing::kWholeRows;
}

cudaError_t OnTensorCores(const ChunkGatedDeltaRuleParams& p, const Chunks& chunks, int64_t tokens,
                          void* workspace, cudaStream_t stream) {
  if (!ChunkSm90PointersAligned(p)) return cudaErrorMisalignedAddress;
  int device, sms;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, device);
  }
  if (error != cudaSuccess) return error;
  ChunkSm90Params params = {p, chunks, ChunkSm90Workspace(p.heads, chunks.count, workspace), {}};
  if (const auto cut = PlanSegments(p.heads, p.rows.count, chunks.count, sms)) {
    params.plan = cut->chunks;
    params.segments = cut->segments;
  } else {
    params.plan =
        PlanChunks(p.heads, {p.rows.count, chunks.count, chunks.longest}, sms, FusingOf(p));
  }
  if (params.plan.fused_blocks > 0) return ChunkFusedSm90(params, tokens, stream);
  error = ChunkPrepareSm90(params, stream);
  if (error == cudaSuccess) error = ChunkChainSm90(params, stream);
  return error;
}

}  // namespace

size_t ChunkGatedDeltaRuleWorkspaceBytes(const ChunkGatedDeltaRuleParams& p, int64_t tokens,
                                         int64_t chunks) {
  if (ChunkSm90Takes(p)) return ChunkSm90WorkspaceBytes(p.heads, chunks);
  size_t bytes;
  LayOut(p, tokens, chunks, nullptr, &bytes);
  return bytes;
}

cudaError_t ChunkGatedDeltaRule(const ChunkGatedDeltaRuleParams& p, const Chunks& chunks,
                                int64_t tokens, void* workspace, cudaStream_t stream) {
  if (tokens == 0) return cudaSuccess;
  return ChunkSm90Takes(p) ? OnTensorCores(p, chunks, tokens, workspace, stream)
                           : Staged(p, chunks, tokens, workspace, stream);
}

}  // namespace gdn::cuda
