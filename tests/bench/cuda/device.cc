#include "tests/bench/cuda/device.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <utility>

namespace gdn::bench {
namespace {

constexpr int kRepeats = 15;

// A stream with two events around what is timed on it.
class Timer {
 public:
  Timer() {
    Check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "stream");
    Check(cudaEventCreate(&begin_), "event");
    Check(cudaEventCreate(&end_), "event");
  }
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;
  ~Timer() {
    cudaEventDestroy(end_);
    cudaEventDestroy(begin_);
    cudaStreamDestroy(stream_);
  }

  cudaStream_t stream() const { return stream_; }

  // The median over kRepeats runs of `enqueue`, in µs, after two untimed ones.
  double Median(const std::function<void()>& enqueue) {
    std::vector<float> times;
    for (int i = -2; i < kRepeats; ++i) {
      Check(cudaEventRecord(begin_, stream_), "record");
      enqueue();
      Check(cudaEventRecord(end_, stream_), "record");
      Check(cudaStreamSynchronize(stream_), "timed run");
      float ms = 0;
      Check(cudaEventElapsedTime(&ms, begin_, end_), "elapsed time");
      if (i >= 0) times.push_back(ms);
    }
    std::nth_element(times.begin(), times.begin() + kRepeats / 2, times.end());
    return 1e3 * static_cast<double>(times[kRepeats / 2]);
  }

 private:
  cudaStream_t stream_ = nullptr;
  cudaEvent_t begin_ = nullptr;
  cudaEvent_t end_ = nullptr;
};

}  // namespace

void Check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(error));
  std::exit(1);
}

Buffer::Buffer(size_t bytes) : size_(bytes) {
  if (bytes > 0) Check(cudaMalloc(&data_, bytes), "device memory");
}

Buffer::Buffer(Buffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

Buffer::~Buffer() { cudaFree(data_); }

double MicrosPerCall(int calls, const Launch& launch) {
  Timer timer;
  Check(launch(0, timer.stream()), "first launch");
  Check(cudaStreamSynchronize(timer.stream()), "first run");
  Check(cudaStreamBeginCapture(timer.stream(), cudaStreamCaptureModeThreadLocal), "capture");
  for (int i = 0; i < calls; ++i) Check(launch(i, timer.stream()), "captured launch");
  cudaGraph_t graph = nullptr;
  Check(cudaStreamEndCapture(timer.stream(), &graph), "capture");
  cudaGraphExec_t exec = nullptr;
  Check(cudaGraphInstantiate(&exec, graph, 0), "instantiate");
  const double micros =
      timer.Median([&] { Check(cudaGraphLaunch(exec, timer.stream()), "replay"); });
  Check(cudaGraphExecDestroy(exec), "graph");
  Check(cudaGraphDestroy(graph), "graph");
  return micros / calls;
}

double CopyBandwidth() {
  constexpr size_t kBytes = size_t{1} << 31;
  constexpr int kCopies = 2;
  const Buffer from(kBytes);
  const Buffer to(kBytes);
  Timer timer;
  Check(cudaMemsetAsync(from.bytes(), 0x3c, kBytes, timer.stream()), "memset");
  const double micros = timer.Median([&] {
    for (int i = 0; i < kCopies; ++i) {
      Check(cudaMemcpyAsync(to.bytes(), from.bytes(), kBytes, cudaMemcpyDeviceToDevice,
                            timer.stream()),
            "copy");
    }
  });
  return 2e-3 * kCopies * kBytes / micros;
}

}  // namespace gdn::bench
