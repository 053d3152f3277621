#include "kernels/cuda/device/chunk_tile.cuh"
#include "kernels/cuda/ops/recompute_w_u.h"

namespace gdn::cuda {
namespace {

constexpr int kThreads = 256;

// y_i = sum over j <= i of m[i][j] * x_j for the rows of a chunk; x and y have `dim` columns.
template <typename X, typename Y>
__device__ void Combine(const float (*m)[kChunk], const X* x, int64_t x_stride, Y* y,
                        int64_t y_stride, int length, int dim) {
  for (int e = threadIdx.x; e < length * dim; e += kThreads) {
    const int i = e / dim;
    const int c = e % dim;
    float sum = 0.0f;
    for (int j = 0; j <= i; ++j) sum = fmaf(m[i][j], ToFloat(x[j * x_stride + c]), sum);
    y[i * y_stride + c] = FromFloat<Y>(sum);
  }
}

// A block takes a chunk and value head.
// w_i = sum_j M_ij * beta_j * exp(gamma_j) * k_j;  u_i = sum_j M_ij * beta_j * v_j
template <typename Io, typename Mid>
__global__ void __launch_bounds__(kThreads) RecomputeWUKernel(RecomputeWUParams p) {
  __shared__ float for_w[kChunk][kChunk];
  __shared__ float for_u[kChunk][kChunk];
  const auto [key_heads, heads, key_dim, value_dim] = p.heads;
  const int head = blockIdx.y;
  const ChunkTile tile = TileOf(p.rows, p.chunks, blockIdx.x);
  const int64_t first = tile.begin * heads + head;
  for (int e = threadIdx.x; e < tile.length * kChunk; e += kThreads) {
    const int i = e / kChunk;
    const int j = e % kChunk;
    if (j >= tile.length) continue;
    const int64_t at = first + int64_t{j} * heads;
    for_u[i][j] = p.inverse[(first + int64_t{i} * heads) * kChunk + j] * p.beta[at];
    for_w[i][j] = for_u[i][j] * expf(p.gamma[at]);
  }
  __syncthreads();
  const int64_t key_head = head / (heads / key_heads);
  Combine(for_w, static_cast<const Io*>(p.k) + tile.begin * p.k_stride + key_head * key_dim,
          p.k_stride, static_cast<Mid*>(p.w) + first * key_dim, int64_t{heads} * key_dim,
          tile.length, key_dim);
  Combine(for_u, static_cast<const Io*>(p.v) + tile.begin * p.v_stride + int64_t{head} * value_dim,
          p.v_stride, static_cast<Mid*>(p.u) + first * value_dim, int64_t{heads} * value_dim,
          tile.length, value_dim);
}

}  // namespace

cudaError_t RecomputeWU(const RecomputeWUParams& p, cudaStream_t stream) {
  if (p.chunks.count == 0) return cudaSuccess;
  const dim3 grid(static_cast<unsigned>(p.chunks.count), p.heads.value_heads);
  return WithType(p.io, [&](auto io) {
    return WithType(p.mid, [&](auto mid) {
      RecomputeWUKernel<decltype(io), decltype(mid)><<<grid, kThreads, 0, stream>>>(p);
      return cudaGetLastError();
    });
  });
}

}  // namespace gdn::cuda
