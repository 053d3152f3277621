#include "kernels/cuda/device/dtype.cuh"
#include "tests/bench/cuda/reference.h"

namespace gdn::bench {
namespace {

constexpr int kDim = 128;                     // K and V
constexpr int kParts = 4;                     // threads that share a row of Sᵀ
constexpr int kSlice = kDim / kParts;         // elements of it in each
constexpr int kDeltaThreads = kDim * kParts;  // of a block: one value head of one row
constexpr int kThreads = 256;

__device__ double SumOfParts(double x) {
  for (int step = 1; step < kParts; step *= 2) x += __shfl_xor_sync(~0u, x, step);
  return x;
}

// Sum over the kDim threads of a block that has only these.
__device__ double SumOfBlock(double x) {
  __shared__ double partial[kDim / 32];
  for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(~0u, x, step);
  __syncthreads();
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = x;
  __syncthreads();
  double sum = 0;
  for (double part : partial) sum += part;
  return sum;
}

// factors[t, h, 0 or 1] = rsqrt(sum of x² over K + eps) of q, k.
__global__ void FactorsKernel(DeltaReference p, double* factors) {
  const int64_t token = blockIdx.x;
  const int head = blockIdx.y;
  const int64_t at = token * p.qk_stride + head * kDim + threadIdx.x;
  const double q = SumOfBlock(p.q[at] * p.q[at]);
  const double k = SumOfBlock(p.k[at] * p.k[at]);
  double* out = factors + 2 * (token * p.heads.key_heads + head);
  if (threadIdx.x == 0) out[0] = rsqrt(q + double{kL2NormEps});
  if (threadIdx.x == 0) out[1] = rsqrt(k + double{kL2NormEps});
}

__global__ void __launch_bounds__(kDeltaThreads, 1)
    DeltaKernel(DeltaReference p, const double* factors) {
  __shared__ double q[2][kDim];
  __shared__ double k[2][kDim];
  const int64_t row = blockIdx.x;
  const int head = blockIdx.y;
  const int key_head = head / (p.heads.value_heads / p.heads.key_heads);
  const int column = threadIdx.x / kParts;
  const int begin = threadIdx.x % kParts * kSlice;
  double* state = p.state + ((row * p.heads.value_heads + head) * kDim + column) * kDim + begin;
  double s[kSlice];
#pragma unroll
  for (int i = 0; i < kSlice; ++i) s[i] = state[i];
  for (int64_t t = p.offsets[row]; t < p.offsets[row + 1]; ++t) {
    const int now = static_cast<int>(t % 2);
    if (threadIdx.x < 2 * kDim) {
      const bool is_k = threadIdx.x >= kDim;
      const int i = threadIdx.x % kDim;
      const double factor = factors[2 * (t * p.heads.key_heads + key_head) + (is_k ? 1 : 0)];
      const double x = (is_k ? p.k : p.q)[t * p.qk_stride + key_head * kDim + i] * factor;
      (is_k ? k : q)[now][i] = x;
    }
    __syncthreads();
    const int64_t gate = t * p.heads.value_heads + head;
    const double decay = exp(p.g[gate]);
    double predicted = 0;
#pragma unroll
    for (int i = 0; i < kSlice; ++i) {
      s[i] *= decay;
      predicted += s[i] * k[now][begin + i];
    }
    const double v = p.v[t * p.v_stride + head * kDim + column];
    const double d = p.beta[gate] * (v - SumOfParts(predicted));
    double out = 0;
#pragma unroll
    for (int i = 0; i < kSlice; ++i) {
      s[i] += k[now][begin + i] * d;
      out += s[i] * q[now][begin + i];
    }
    out = SumOfParts(out);
    if (begin == 0) p.o[gate * kDim + column] = p.scale * out;
  }
#pragma unroll
  for (int i = 0; i < kSlice; ++i) state[i] = s[i];
}

__device__ double Silu(double x) { return x / (1.0 + exp(-x)); }

__global__ void ConvKernel(ConvReference p) {
  const int64_t row = blockIdx.y;
  const int64_t channel = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (channel >= p.channels) return;
  double* history = p.history + row * (p.width - 1) * p.channels + channel;
  double window[4];
  for (int j = 0; j < p.width - 1; ++j) window[j] = history[j * p.channels];
  for (int64_t t = row * p.length; t < (row + 1) * p.length; ++t) {
    window[p.width - 1] = p.x[t * p.x_stride + channel];
    double sum = 0;
    for (int j = 0; j < p.width; ++j) sum += p.weight[channel * p.width + j] * window[j];
    p.y[t * p.channels + channel] = Silu(sum);
    for (int j = 0; j < p.width - 1; ++j) window[j] = window[j + 1];
  }
  for (int j = 0; j < p.width - 1; ++j) history[j * p.channels] = window[j];
}

__global__ void GatingKernel(GatingReference p) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= p.tokens * p.value_heads) return;
  const int64_t head = i % p.value_heads;
  const int64_t at = i / p.value_heads * p.stride + head;
  const double x = p.a[at] + double{p.dt_bias[head]};
  p.g[i] = -exp(double{p.a_log[head]}) * (x > 20.0 ? x : log1p(exp(x)));
  p.beta[i] = 1.0 / (1.0 + exp(-p.b[at]));
}

__global__ void NormKernel(NormReference p) {
  const int64_t token = blockIdx.x;
  const int64_t head = blockIdx.y;
  double* o = p.o + (token * p.value_heads + head) * kDim + threadIdx.x;
  const double mean = SumOfBlock(*o * *o) / kDim;
  const double z = p.z[token * p.z_stride + head * kDim + threadIdx.x];
  *o = *o * rsqrt(mean + p.eps) * double{p.weight[threadIdx.x]} * Silu(z);
}

template <typename T>
__global__ void GatherKernel(const T* pool, int64_t slot_stride, const int32_t* slots,
                             int64_t elements, double* out) {
  const int64_t row = blockIdx.y;
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < elements) out[row * elements + i] = cuda::ToFloat(pool[slots[row] * slot_stride + i]);
}

unsigned Blocks(int64_t n) { return static_cast<unsigned>((n + kThreads - 1) / kThreads); }

}  // namespace

void Reference(const DeltaReference& p) {
  const auto tokens = static_cast<unsigned>(p.tokens);
  const auto key_heads = static_cast<unsigned>(p.heads.key_heads);
  const auto value_heads = static_cast<unsigned>(p.heads.value_heads);
  const Buffer factors(2 * sizeof(double) * p.tokens * p.heads.key_heads);
  FactorsKernel<<<dim3(tokens, key_heads), kDim>>>(p, factors.as<double>());
  DeltaKernel<<<dim3(static_cast<unsigned>(p.rows), value_heads), kDeltaThreads>>>(
      p, factors.as<double>());
  Check(cudaDeviceSynchronize(), "reference of the delta rule");
}

void Reference(const ConvReference& p) {
  ConvKernel<<<dim3(Blocks(p.channels), static_cast<unsigned>(p.rows)), kThreads>>>(p);
  Check(cudaDeviceSynchronize(), "reference of the convolution");
}

void Reference(const GatingReference& p) {
  GatingKernel<<<Blocks(p.tokens * p.value_heads), kThreads>>>(p);
  Check(cudaDeviceSynchronize(), "reference of the gates");
}

void Reference(const NormReference& p) {
  const dim3 grid(static_cast<unsigned>(p.tokens), static_cast<unsigned>(p.value_heads));
  NormKernel<<<grid, kDim>>>(p);
  Check(cudaDeviceSynchronize(), "reference of the norm");
}

Buffer GatherStates(const StatePool& pool, const int32_t* slots, int64_t rows, int64_t elements) {
  Buffer out(static_cast<size_t>(rows * elements) * sizeof(double));
  cuda::WithType(pool.type, [&](auto t) {
    GatherKernel<<<dim3(Blocks(elements), static_cast<unsigned>(rows)), kThreads>>>(
        static_cast<const decltype(t)*>(pool.data), pool.slot_stride, slots, elements,
        out.as<double>());
  });
  Check(cudaDeviceSynchronize(), "states");
  return out;
}

}  // namespace gdn::bench
