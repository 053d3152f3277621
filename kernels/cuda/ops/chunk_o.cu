#include "kernels/cuda/device/chunk_tile.cuh"
#include "kernels/cuda/ops/chunk_o.h"

namespace gdn::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kColumns = 32;  // of V that a block takes at a time

// A block takes a chunk and value head.
// o_i = scale * (exp(gamma_i) * S q_i + sum over j <= i of exp(gamma_i - gamma_j) (q_i · k_j) v_j)
template <typename Io, typename Mid, typename Out>
__global__ void __launch_bounds__(kThreads) ChunkOKernel(ChunkOParams p) {
  extern __shared__ float shared[];
  __shared__ float scores[kChunk][kChunk];
  __shared__ float gamma[kChunk];
  const auto [key_heads, heads, key_dim, value_dim] = p.heads;
  const int64_t chunk = blockIdx.x;
  const int head = blockIdx.y;
  const ChunkTile tile = TileOf(p.rows, p.chunks, chunk);
  Out* o = static_cast<Out*>(p.o) + tile.begin * p.o_stride + int64_t{head} * value_dim;
  if (p.rows.slot(tile.row) < 0) {
    for (int e = threadIdx.x; e < tile.length * value_dim; e += kThreads) {
      o[e / value_dim * p.o_stride + e % value_dim] = FromFloat<Out>(0.0f);
    }
    return;
  }

  float* q = shared;                           // [kChunk][K + 1]
  float* k = shared + kChunk * (key_dim + 1);  // [kChunk][K + 1], afterwards a tile of h
  const int64_t key_offset = int64_t{head / (heads / key_heads)} * key_dim;
  const int64_t first = tile.begin * heads + head;
  LoadTile(static_cast<const Io*>(p.q) + tile.begin * p.q_stride + key_offset, p.q_stride,
           tile.length, key_dim, q);
  LoadTile(static_cast<const Io*>(p.k) + tile.begin * p.k_stride + key_offset, p.k_stride,
           tile.length, key_dim, k);
  for (int i = threadIdx.x; i < tile.length; i += kThreads) {
    gamma[i] = p.gamma[first + int64_t{i} * heads];
  }
  __syncthreads();
  for (int e = threadIdx.x; e < tile.length * kChunk; e += kThreads) {
    const int i = e / kChunk;
    const int j = e % kChunk;
    if (j > i) continue;
    scores[i][j] =
        expf(gamma[i] - gamma[j]) * Dot(q + i * (key_dim + 1), k + j * (key_dim + 1), key_dim);
  }
  const Mid* h = static_cast<const Mid*>(p.h) + (chunk * heads + head) * value_dim * key_dim;
  const Mid* v = static_cast<const Mid*>(p.v_new) + first * value_dim;
  for (int c0 = 0; c0 < value_dim; c0 += kColumns) {
    __syncthreads();
    LoadTile(h + int64_t{c0} * key_dim, key_dim, kColumns, key_dim, k);
    __syncthreads();
    for (int e = threadIdx.x; e < tile.length * kColumns; e += kThreads) {
      const int i = e / kColumns;
      const int c = e % kColumns;
      float sum = expf(gamma[i]) * Dot(q + i * (key_dim + 1), k + c * (key_dim + 1), key_dim);
      for (int j = 0; j <= i; ++j) {
        sum = fmaf(scores[i][j], ToFloat(v[int64_t{j} * heads * value_dim + c0 + c]), sum);
      }
      o[i * p.o_stride + c0 + c] = FromFloat<Out>(p.scale * sum);
    }
  }
}

}  // namespace

cudaError_t ChunkO(const ChunkOParams& p, cudaStream_t stream) {
  if (p.chunks.count == 0) return cudaSuccess;
  const int bytes = 2 * kChunk * (p.heads.key_dim + 1) * int{sizeof(float)};
  return WithType(p.io, [&](auto io) {
    return WithType(p.mid, [&](auto mid) {
      return WithType(p.o_type, [&](auto out) {
        const auto kernel = ChunkOKernel<decltype(io), decltype(mid), decltype(out)>;
        const cudaError_t error =
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
        if (error != cudaSuccess) return error;
        const dim3 grid(static_cast<unsigned>(p.chunks.count), p.heads.value_heads);
        kernel<<<grid, kThreads, bytes, stream>>>(p);
        return cudaGetLastError();
      });
    });
  });
}

}  // namespace gdn::cuda
