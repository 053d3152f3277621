// What the kernels of projection_of_few.h have in common: products, the warps' sums of them, and
// what becomes of an output.
#pragma once

#include "kernels/cuda/device/dtype.cuh"
#include "kernels/cuda/device/ptx.cuh"
#include "kernels/cuda/ops/step_rows.h"
#include "kernels/ops/projection.h"

namespace gdn::cuda::projection {

inline constexpr int kTile = 8;      // tokens that the tensor cores take at once
inline constexpr int kOutputs = 16;  // that they give at once
inline constexpr int kWarps = 8;     // share `in`
inline constexpr int kThreads = kWarps * 32;
inline constexpr int kBlock = 32;  // of `in`: what a warp multiplies at a time

// Of one warp: sixteen outputs of each token.
template <typename T, int kTiles>
struct Sums {
  float x[kTiles][4] = {};

  // Thread 4g + c brings eight neighbours along `in`: of w's rows g and g + 8, and of x's row g of
  // each tile. The tensor cores see them in another order, the same for w and x.
  __device__ void Add(uint4 low, uint4 high, const uint4 (&tokens)[kTiles]) {
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      const uint4 t = tokens[tile];
      Mma<T>(x[tile], low.x, high.x, low.y, high.y, t.x, t.y);
      Mma<T>(x[tile], low.z, high.z, low.w, high.w, t.z, t.w);
    }
  }
};

// Of all warps, in shared memory; padded so that banks meet neither on the way in nor out.
template <int kTiles>
struct WarpSums {
  static constexpr int kTokens = kTiles * kTile;

  float x[kWarps][kTokens][kOutputs + 4];

  template <typename T>
  __device__ void Put(const Sums<T, kTiles>& sums) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int token = tile * kTile + lane % 4 * 2 + i % 2;
        x[threadIdx.x / 32][token][lane / 4 + i / 2 * 8] = sums.x[tile][i];
      }
    }
  }
};

// A thread's two outputs of a token, of each sixteen.
struct OutputPair {
  int token = static_cast<int>(threadIdx.x) / (kOutputs / 2);
  int first = static_cast<int>(threadIdx.x) % (kOutputs / 2) * 2;

  // Of parts [.][token][output], added in order.
  template <int kParts, int kTokens>
  __device__ float2 Total(const float (&parts)[kParts][kTokens][kOutputs + 4]) const {
    float2 y = {0.0f, 0.0f};
    for (int i = 0; i < kParts; ++i) {
      const float2 more = *reinterpret_cast<const float2*>(&parts[i][token][first]);
      y.x += more.x;
      y.y += more.y;
    }
    return y;
  }
};

// What becomes of a thread's outputs. Where `finish` has faults, what FinishRows does to the rows.
template <typename T>
class Outputs {
 public:
  // Before what precedes on the stream has ended.
  __device__ Outputs(const ProjectionParams& p, const FinishRowsParams& finish, OutputPair pair)
      : p_(p), finish_(finish), pair_(pair) {
    if (finish.faults == nullptr || pair.token >= p.tokens) return;
    slot_ = finish.rows.slot(pair.token);
    keep_ = finish.keep[pair.token] != 0;
    if (finish.answers_to != nullptr) to_ = static_cast<T*>(finish.answers_to[pair.token]);
  }

  // Of the sixteen outputs from `sixteen` on.
  __device__ void Store(int64_t sixteen, float2 y) const {
    const int64_t output = sixteen + pair_.first;
    if (pair_.token >= p_.tokens || output >= p_.out) return;
    const uint32_t bits = slot_ < 0 ? 0 : PackPair<T>(y.x, y.y);
    T* to = static_cast<T*>(p_.y) + pair_.token * p_.y_stride + output;
    *reinterpret_cast<uint32_t*>(to) = bits;
    if (to_ != nullptr) *reinterpret_cast<uint32_t*>(to_ + output) = bits;
    if (finish_.faults != nullptr && slot_ >= 0) Finish(output, bits);
  }

  // Of the rows with a fault in what the layer made of their input, the block's share: whether the
  // input itself has one. By all threads of the block.
  __device__ void Classify() const {
    if (finish_.faults == nullptr) return;
    for (int64_t row = blockIdx.x; row < p_.tokens; row += gridDim.x) {
      if (finish_.rows.slot(row) < 0 || !HasFault(row)) continue;
      const bool bad = finish_.input == nullptr || __syncthreads_or(InputNonFinite(row));
      if (threadIdx.x != 0) continue;
      Tell(row, bad ? kFaultNonFinite : kFaultOverflow);
      if (bad) continue;
      atomicOr(finish_.faults + row, kFaultOverflow);
      atomicAnd(finish_.faults + row, ~kFaultNonFinite);
    }
  }

 private:
  // The thread's share.
  __device__ bool InputNonFinite(int64_t row) const {
    const T* input = static_cast<const T*>(finish_.input) + row * finish_.input_width;
    bool bad = false;
    for (int64_t i = threadIdx.x; i < finish_.input_width; i += kThreads) {
      bad |= !isfinite(ToFloat(input[i]));
    }
    return bad;
  }

  __device__ bool HasFault(int64_t row) const {
    return (LoadRelaxed(finish_.faults + row) & kFaultNonFinite) != 0;
  }

  __device__ void Finish(int64_t output, uint32_t bits) const {
    if (keep_) {
      char* answer = static_cast<char*>(finish_.answers) + slot_ * finish_.answer_stride;
      *reinterpret_cast<uint32_t*>(reinterpret_cast<T*>(answer) + output) = bits;
    }
    const T* y = reinterpret_cast<const T*>(&bits);
    const bool bad = !isfinite(ToFloat(y[0])) || !isfinite(ToFloat(y[1]));
    // A row with a fault in its input keeps that one, whatever its output is.
    if (!bad || HasFault(pair_.token)) return;
    atomicOr(finish_.faults + pair_.token, kFaultOverflow);
    Tell(pair_.token, kFaultOverflow);
  }

  __device__ void Tell(int64_t row, uint32_t fault) const {
    if (finish_.faults_to != nullptr) finish_.faults_to[row] = fault;
  }

  const ProjectionParams& p_;
  const FinishRowsParams& finish_;
  OutputPair pair_;
  int64_t slot_ = 0;
  bool keep_ = false;
  T* to_ = nullptr;  // of the token's answer, beside p.y
};

}  // namespace gdn::cuda::projection
