#include "kernels/cuda/device/dtype.cuh"
#include "tests/bench/cuda/random.h"

namespace gdn::bench {
namespace {

constexpr int kThreads = 256;
constexpr int kBlocks = 2048;

// splitmix64: a hash whose 64 bits all depend on all of x.
__device__ uint64_t Hash(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

// Box-Muller: sqrt(-2 ln u) cos(2 pi v) with u in (0, 1], v in [0, 1).
__device__ float NormalAt(uint64_t seed, int64_t i) {
  const uint64_t bits = Hash(Hash(seed) ^ static_cast<uint64_t>(i));
  const float u = (static_cast<float>(bits >> 40) + 1.0f) * 0x1p-24f;
  const float v = static_cast<float>(bits & 0xffffff) * 0x1p-24f;
  return sqrtf(-2.0f * logf(u)) * cospif(2.0f * v);
}

template <typename T>
__global__ void NormalKernel(T* data, int64_t n, float deviation, uint64_t seed) {
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < n;
       i += int64_t{gridDim.x} * kThreads) {
    data[i] = cuda::FromFloat<T>(deviation * NormalAt(seed, i));
  }
}

template <typename T>
__global__ void WidenKernel(const T* data, double* wide, int64_t n) {
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < n;
       i += int64_t{gridDim.x} * kThreads) {
    wide[i] = cuda::ToFloat(data[i]);
  }
}

// sums[0] += sum of (x - reference)², sums[1] += sum of reference².
__global__ void SquaresKernel(const double* x, const double* reference, int64_t n, double* sums) {
  double error = 0;
  double norm = 0;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < n;
       i += int64_t{gridDim.x} * kThreads) {
    const double difference = x[i] - reference[i];
    error += difference * difference;
    norm += reference[i] * reference[i];
  }
  for (int step = 16; step > 0; step /= 2) {
    error += __shfl_xor_sync(~0u, error, step);
    norm += __shfl_xor_sync(~0u, norm, step);
  }
  if (threadIdx.x % 32 == 0) {
    atomicAdd(&sums[0], error);
    atomicAdd(&sums[1], norm);
  }
}

}  // namespace

Buffer Normal(DType type, int64_t n, float deviation, uint64_t seed) {
  Buffer buffer(static_cast<size_t>(n) * SizeOf(type));
  cuda::WithType(type, [&](auto t) {
    NormalKernel<<<kBlocks, kThreads>>>(buffer.as<decltype(t)>(), n, deviation, seed);
  });
  Check(cudaGetLastError(), "random numbers");
  return buffer;
}

Buffer Widen(const void* data, DType type, int64_t n) {
  Buffer buffer(static_cast<size_t>(n) * sizeof(double));
  cuda::WithType(type, [&](auto t) {
    WidenKernel<<<kBlocks, kThreads>>>(static_cast<const decltype(t)*>(data), buffer.as<double>(),
                                       n);
  });
  Check(cudaGetLastError(), "conversion");
  return buffer;
}

double RelativeRms(const double* x, const double* reference, int64_t n) {
  const Buffer sums = ToDevice(std::vector<double>{0.0, 0.0});
  SquaresKernel<<<kBlocks, kThreads>>>(x, reference, n, sums.as<double>());
  double host[2];
  Check(cudaMemcpy(host, sums.bytes(), sizeof host, cudaMemcpyDeviceToHost), "comparison");
  return sqrt(host[0] / host[1]);
}

}  // namespace gdn::bench
