#include "kernels/cuda/device/chunk_tile.cuh"
#include "kernels/cuda/ops/chunk_scaled_dot_kkt.h"

namespace gdn::cuda {
namespace {

constexpr int kThreads = 256;

// A block takes a chunk and value head.
// A_ij = beta_i * (k_i · k_j) * exp(gamma_i - gamma_j) for i > j
template <typename T>
__global__ void __launch_bounds__(kThreads) KktKernel(ChunkScaledDotKktParams p) {
  extern __shared__ float k[];  // [kChunk][K + 1]
  const auto [key_heads, heads, key_dim, _] = p.heads;
  const int head = blockIdx.y;
  const ChunkTile tile = TileOf(p.rows, p.chunks, blockIdx.x);
  const int64_t key_head = head / (heads / key_heads);
  LoadTile(static_cast<const T*>(p.k) + tile.begin * p.k_stride + key_head * key_dim, p.k_stride,
           tile.length, key_dim, k);
  __syncthreads();
  for (int e = threadIdx.x; e < tile.length * kChunk; e += kThreads) {
    const int i = e / kChunk;
    const int j = e % kChunk;
    const int64_t at = (tile.begin + i) * heads + head;
    float a = 0.0f;
    if (j < i) {
      const float decay = expf(p.gamma[at] - p.gamma[at - int64_t{i - j} * heads]);
      a = p.beta[at] * Dot(k + i * (key_dim + 1), k + j * (key_dim + 1), key_dim) * decay;
    }
    p.a[at * kChunk + j] = a;
  }
}

}  // namespace

cudaError_t ChunkScaledDotKkt(const ChunkScaledDotKktParams& p, cudaStream_t stream) {
  if (p.chunks.count == 0) return cudaSuccess;
  const int bytes = kChunk * (p.heads.key_dim + 1) * int{sizeof(float)};
  return WithType(p.io, [&](auto t) {
    const auto kernel = KktKernel<decltype(t)>;
    const cudaError_t error =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (error != cudaSuccess) return error;
    const dim3 grid(static_cast<unsigned>(p.chunks.count), p.heads.value_heads);
    kernel<<<grid, kThreads, bytes, stream>>>(p);
    return cudaGetLastError();
  });
}

}  // namespace gdn::cuda
