#include "kernels/cuda/device/chunk_tile.cuh"
#include "kernels/cuda/ops/chunk_delta_h.h"

namespace gdn::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kColumns = 16;  // of V that a block takes; they do not depend on one another

// The slice of the state that a block holds, and what the chunk adds to it.
struct Slice {
  float* s;              // [kColumns][K + 1]
  float (*v)[kColumns];  // [kChunk]: v_new_i * exp(gamma_last - gamma_i)
};

// One chunk of one head:
//   h = S;  v_new_i = u_i - S w_i;  S = exp(gamma_last) * S + sum_i v_new_i * decay_i ⊗ k_i
template <typename Io, typename Mid>
__device__ void AdvanceChunk(const ChunkDeltaHParams& p, int64_t chunk, int head, int first_column,
                             Slice slice) {
  const auto [key_heads, heads, key_dim, value_dim] = p.heads;
  const ChunkTile tile = TileOf(p.rows, p.chunks, chunk);
  const int64_t first = tile.begin * heads + head;
  const float last = p.gamma[first + int64_t{tile.length - 1} * heads];
  const float decay = expf(last);
  Mid* h = static_cast<Mid*>(p.h) + ((chunk * heads + head) * value_dim + first_column) * key_dim;
  for (int e = threadIdx.x; e < tile.length * kColumns; e += kThreads) {
    const int i = e / kColumns;
    const int c = e % kColumns;
    const int64_t at = first + int64_t{i} * heads;
    const Mid* w = static_cast<const Mid*>(p.w) + at * key_dim;
    const float* s = slice.s + c * (key_dim + 1);
    float sum = 0.0f;
    for (int k = 0; k < key_dim; ++k) sum = fmaf(s[k], ToFloat(w[k]), sum);
    const int64_t element = at * value_dim + first_column + c;
    const float v_new = ToFloat(static_cast<const Mid*>(p.u)[element]) - sum;
    static_cast<Mid*>(p.v_new)[element] = FromFloat<Mid>(v_new);
    slice.v[i][c] = v_new * expf(last - p.gamma[at]);
  }
  __syncthreads();
  const int64_t key_head = head / (heads / key_heads);
  const Io* k = static_cast<const Io*>(p.k) + tile.begin * p.k_stride + key_head * key_dim;
  for (int e = threadIdx.x; e < kColumns * key_dim; e += kThreads) {
    const int c = e / key_dim;
    const int column = e % key_dim;
    float* s = slice.s + c * (key_dim + 1) + column;
    h[int64_t{c} * key_dim + column] = FromFloat<Mid>(*s);
    float sum = decay * *s;
    for (int i = 0; i < tile.length; ++i) {
      sum = fmaf(slice.v[i][c], ToFloat(k[i * p.k_stride + column]), sum);
    }
    *s = sum;
  }
  __syncthreads();
}

// A block takes kColumns of V of one head of one row, chunk after chunk.
template <typename Io, typename Mid, typename State>
__global__ void __launch_bounds__(kThreads) ChunkDeltaHKernel(ChunkDeltaHParams p) {
  extern __shared__ float s[];
  __shared__ float v[kChunk][kColumns];
  const int64_t row = blockIdx.x;
  const int head = blockIdx.y;
  const int first_column = static_cast<int>(blockIdx.z) * kColumns;
  const auto [_, heads, key_dim, value_dim] = p.heads;
  if (p.rows.slot(row) < 0 || p.rows.offsets[row] == p.rows.offsets[row + 1]) return;

  State* pool = static_cast<State*>(p.ssm.data);
  if (pool != nullptr) {
    pool +=
        p.rows.slot(row) * p.ssm.slot_stride + (int64_t{head} * value_dim + first_column) * key_dim;
  }
  const bool read = pool != nullptr && p.rows.has_state(row);
  for (int e = threadIdx.x; e < kColumns * key_dim; e += kThreads) {
    s[e / key_dim * (key_dim + 1) + e % key_dim] = read ? ToFloat(pool[e]) : 0.0f;
  }
  __syncthreads();
  for (int64_t c = p.chunks.chunk_offsets[row]; c < p.chunks.chunk_offsets[row + 1]; ++c) {
    AdvanceChunk<Io, Mid>(p, c, head, first_column, {s, v});
  }
  if (pool == nullptr) return;
  for (int e = threadIdx.x; e < kColumns * key_dim; e += kThreads) {
    pool[e] = FromFloat<State>(s[e / key_dim * (key_dim + 1) + e % key_dim]);
  }
}

}  // namespace

cudaError_t ChunkDeltaH(const ChunkDeltaHParams& p, cudaStream_t stream) {
  if (p.chunks.count == 0) return cudaSuccess;
  const dim3 grid(static_cast<unsigned>(p.rows.count), p.heads.value_heads,
                  p.heads.value_dim / kColumns);
  const size_t bytes = kColumns * (p.heads.key_dim + 1) * sizeof(float);
  return WithType(p.io, [&](auto io) {
    return WithType(p.mid, [&](auto mid) {
      return WithType(p.ssm.type, [&](auto state) {
        ChunkDeltaHKernel<decltype(io), decltype(mid), decltype(state)>
            <<<grid, kThreads, bytes, stream>>>(p);
        return cudaGetLastError();
      });
    });
  });
}

}  // namespace gdn::cuda
