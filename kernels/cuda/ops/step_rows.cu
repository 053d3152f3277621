#include <algorithm>

#include "kernels/cuda/device/dtype.cuh"
#include "kernels/cuda/device/launch.cuh"
#include "kernels/cuda/device/ptx.cuh"
#include "kernels/cuda/ops/step_rows.h"
#include "kernels/synthetic.h"

namespace gdn::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kPieceTokens = 8;  // of a block

template <typename T>
__global__ void SynthesizeKernel(SynthesizeParams p) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= p.count) return;
  static_cast<T*>(p.to)[i] =
      FromFloat<T>(SyntheticValue(p.seed, static_cast<uint64_t>(p.first + i)));
}

// Some tokens of one row.
struct Piece {
  int64_t row;
  int64_t begin;  // of the row, in the batch
  int64_t end;
  int64_t first;
  int64_t last;

  __device__ int64_t tokens() const { return last - first; }
};

// The block's share of a chunk; without chunks, the token of its row.
__device__ Piece PieceOf(const Rows& rows, const Chunks& chunks) {
  const int64_t block = blockIdx.x;
  if (rows.offsets == nullptr) return {block, block, block + 1, block, block + 1};
  const int64_t row = chunks.chunk_indices[2 * block];
  const int64_t begin = rows.offsets[row], end = rows.offsets[row + 1];
  const int64_t first =
      begin + chunks.chunk_indices[2 * block + 1] * kChunk + int64_t{blockIdx.y} * kPieceTokens;
  return {row, begin, end, min(first, end), min(first + kPieceTokens, end)};
}

template <typename T>
__device__ bool NonFinite(T x) {
  return !isfinite(ToFloat(x));
}

// Whether one of the numbers in 16 bytes is NaN or infinity.
template <typename T>
__device__ bool PackNonFinite(uint4 pack) {
  const T* x = reinterpret_cast<const T*>(&pack);
  bool bad = false;
#pragma unroll
  for (int i = 0; i < 16 / static_cast<int>(sizeof(T)); ++i) bad |= NonFinite(x[i]);
  return bad;
}

__device__ bool Aligned(const void* data, int64_t bytes) {
  return reinterpret_cast<uintptr_t>(data) % 16 == 0 && bytes % 16 == 0;
}

// Calls f(i, pack) for this thread's share of the 16-byte packs of `tokens` rows of `width`
// elements, or one(i, x) for that of the elements where they do not lie on 16 bytes.
template <typename T, typename F, typename G>
__device__ void ForShare(const T* x, int64_t stride, int64_t width, int64_t tokens, F&& f,
                         G&& one) {
  constexpr int64_t kPack = 16 / sizeof(T);
  if (Aligned(x, stride * sizeof(T)) && width % kPack == 0) {
    const int64_t packs = width / kPack;
    for (int64_t t = 0; t < tokens; ++t) {
      const auto* row = reinterpret_cast<const uint4*>(x + t * stride);
#pragma unroll 4
      for (int64_t i = threadIdx.x; i < packs; i += kThreads) f(t * packs + i, row[i]);
    }
    return;
  }
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t i = threadIdx.x; i < width; i += kThreads) one(t * width + i, x[t * stride + i]);
  }
}

// Whether this thread's share of x [tokens, width] has NaN or infinity.
template <typename T>
__device__ bool ShareNonFinite(const T* x, int64_t stride, int64_t width, int64_t tokens) {
  bool bad = false;
  ForShare(
      x, stride, width, tokens, [&](int64_t, uint4 pack) { bad |= PackNonFinite<T>(pack); },
      [&](int64_t, T value) { bad |= NonFinite(value); });
  return bad;
}

__device__ bool TensorNonFinite(const CheckRowsParams::Tensor& x, int64_t first, int64_t tokens) {
  const int64_t at = first * x.stride;
  switch (x.type) {
    case DType::kFp32:
      return ShareNonFinite(static_cast<const float*>(x.data) + at, x.stride, x.width, tokens);
    case DType::kBf16:
      return ShareNonFinite(static_cast<const __nv_bfloat16*>(x.data) + at, x.stride, x.width,
                            tokens);
    case DType::kFp16:
      break;
  }
  return ShareNonFinite(static_cast<const __half*>(x.data) + at, x.stride, x.width, tokens);
}

// Grid: chunks, pieces of a chunk.
__global__ void __launch_bounds__(kThreads)
    CheckRowsKernel(const __grid_constant__ CheckRowsParams p) {
  GridDependencyWait();
  GridDependencyLaunch();
  const Piece piece = PieceOf(p.rows, p.chunks);
  if (p.rows.slot(piece.row) < 0) return;
  bool bad = false;
  for (int i = 0; i < p.tensors; ++i) {
    bad |= TensorNonFinite(p.tensor[i], piece.first, piece.tokens());
  }
  if (__syncthreads_or(bad) && threadIdx.x == 0) atomicOr(p.faults + piece.row, p.fault);
}

__global__ void MaskRowsKernel(MaskRowsParams p) {
  GridDependencyWait();
  GridDependencyLaunch();
  const int64_t row = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (row < p.rows) p.masked[row] = p.faults[row] == 0 ? p.slots[row] : -1;
}

__device__ void Tell(const FinishRowsParams& p, int64_t row, uint32_t faults) {
  if (p.faults_to != nullptr && faults != 0) p.faults_to[row] = faults;
}

// Grid: chunks and pieces of a chunk, or rows of one token.
template <typename Io>
__global__ void __launch_bounds__(kThreads)
    FinishRowsKernel(const __grid_constant__ FinishRowsParams p) {
  const Piece piece = PieceOf(p.rows, p.chunks);
  const bool keep = p.keep[piece.row] != 0;
  const bool single = p.rows.offsets == nullptr;
  int64_t slot = single ? p.rows.slot(piece.row) : 0;
  Io* to = p.answers_to == nullptr ? nullptr : static_cast<Io*>(p.answers_to[piece.row]);
  GridDependencyWait();
  GridDependencyLaunch();
  if (!single) slot = p.rows.slot(piece.row);
  const uint32_t faults = p.faults[piece.row];
  Io* output = static_cast<Io*>(p.output) + piece.first * p.width;
  if (slot < 0) {
    for (int64_t i = threadIdx.x; i < piece.tokens() * p.width; i += kThreads) {
      output[i] = FromFloat<Io>(0.0f);
      if (to != nullptr) to[i] = FromFloat<Io>(0.0f);
    }
    return;
  }
  if (piece.tokens() == 0) return;
  Io* answer = nullptr;
  if (keep) {
    answer = reinterpret_cast<Io*>(static_cast<char*>(p.answers) + slot * p.answer_stride) +
             (piece.first - piece.begin) * p.width;
  }
  bool bad = false;
  ForShare(
      static_cast<const Io*>(output), p.width, p.width, piece.tokens(),
      [&](int64_t i, uint4 pack) {
        bad |= PackNonFinite<Io>(pack);
        if (answer != nullptr) reinterpret_cast<uint4*>(answer)[i] = pack;
        if (to != nullptr) reinterpret_cast<uint4*>(to)[i] = pack;
      },
      [&](int64_t i, Io x) {
        bad |= NonFinite(x);
        if (answer != nullptr) answer[i] = x;
        if (to != nullptr) to[i] = x;
      });
  bad = __syncthreads_or(bad);
  const bool classify = p.input != nullptr && (faults & kFaultNonFinite) != 0;
  if (!classify) {
    if (threadIdx.x != 0) return;
    if (bad) atomicOr(p.faults + piece.row, kFaultOverflow);
    return Tell(p, piece.row, bad ? faults | kFaultOverflow : faults);
  }
  if (piece.first != piece.begin) return;
  const Io* input = static_cast<const Io*>(p.input) + piece.begin * p.input_width;
  bad = ShareNonFinite(input, p.input_width, p.input_width, piece.end - piece.begin);
  bad = __syncthreads_or(bad);
  if (threadIdx.x != 0) return;
  if (!bad) p.faults[piece.row] = kFaultOverflow;
  Tell(p, piece.row, bad ? faults : kFaultOverflow);
}

dim3 Pieces(const Chunks& chunks) {
  return {static_cast<unsigned>(chunks.count), kChunk / kPieceTokens, 1};
}

unsigned Blocks(int64_t count) { return static_cast<unsigned>((count + kThreads - 1) / kThreads); }

}  // namespace

cudaError_t Synthesize(const SynthesizeParams& p, cudaStream_t stream) {
  if (p.count == 0) return cudaSuccess;
  return WithType(p.type, [&](auto x) {
    SynthesizeKernel<decltype(x)><<<Blocks(p.count), kThreads, 0, stream>>>(p);
    return cudaGetLastError();
  });
}

cudaError_t CheckRows(const CheckRowsParams& p, cudaStream_t stream) {
  if (p.chunks.count == 0) return cudaSuccess;
  return LaunchDependent(CheckRowsKernel, Pieces(p.chunks), kThreads, 0, stream, p);
}

cudaError_t MaskRows(const MaskRowsParams& p, cudaStream_t stream) {
  if (p.rows == 0) return cudaSuccess;
  return LaunchDependent(MaskRowsKernel, Blocks(p.rows), kThreads, 0, stream, p);
}

cudaError_t FinishRows(const FinishRowsParams& p, cudaStream_t stream) {
  const dim3 grid =
      p.rows.offsets == nullptr ? dim3(static_cast<unsigned>(p.rows.count)) : Pieces(p.chunks);
  if (grid.x == 0) return cudaSuccess;
  return WithType(p.io, [&](auto io) {
    return LaunchDependent(FinishRowsKernel<decltype(io)>, grid, kThreads, 0, stream, p);
  });
}

}  // namespace gdn::cuda
