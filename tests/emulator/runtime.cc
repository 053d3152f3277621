// The CUDA runtime over the machine in software: what the ops and their tests call of it. Copies
// and kernels run when somebody waits for them.
#include "tests/emulator/runtime.h"

#include <cuda.h>
#include <cxxabi.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "tests/emulator/machine.h"
#include "tests/emulator/residents.h"
#include "tests/emulator/tensor_map.h"

namespace gdn::emulator {

Resources memory;

namespace {

constexpr size_t kPage = 4096;
constexpr size_t kPoisoned = size_t{8} << 20;  // of an allocation, at most

struct Mapping {
  void* begin;
  size_t bytes;
};
std::map<void*, Mapping> mappings;

cudaError_t last_error = cudaSuccess;
bool capture_broken = false;

size_t RoundUp(size_t x, size_t to) { return (x + to - 1) / to * to; }

cudaError_t Failed(cudaError_t error) { return last_error = error; }

// What is not a kernel, in its place among them.
void EnqueueOnHost(const char* name, std::function<void()> work) {
  Grid grid;
  grid.name = name;
  grid.kernel = std::move(work);
  Enqueue(std::move(grid));
}

cudaError_t Finish() {
  if (IsCapturing()) {
    capture_broken = true;
    return Failed(cudaErrorStreamCaptureUnsupported);
  }
  const std::string failure = RunAll();
  if (failure.empty()) return cudaSuccess;
  std::fprintf(stderr, "emulated device: %s\n", failure.c_str());
  return Failed(cudaErrorLaunchFailure);
}

}  // namespace

bool Resources::Take() {
  if (until_refused == 0) {
    until_refused = -1;
    return false;
  }
  if (until_refused > 0) --until_refused;
  ++held;
  return true;
}

std::string NameOf(const std::type_info& type) {
  const std::unique_ptr<char, void (*)(void*)> name(
      abi::__cxa_demangle(type.name(), nullptr, nullptr, nullptr), std::free);
  return name == nullptr ? type.name() : name.get();
}

// Tensors as MapPanels has them.
CUresult EncodeTiled(CUtensorMap* map, CUtensorMapDataType, cuuint32_t dimensions, void* data,
                     const cuuint64_t* size, const cuuint64_t* bytes, const cuuint32_t* box,
                     const cuuint32_t*, CUtensorMapInterleave, CUtensorMapSwizzle swizzle,
                     CUtensorMapL2promotion, CUtensorMapFloatOOBfill) {
  const bool panels =
      dimensions == 2 && box[0] == 64 && box[1] == 64 && swizzle == CU_TENSOR_MAP_SWIZZLE_128B;
  const bool aligned = reinterpret_cast<uintptr_t>(data) % 16 == 0 && bytes[0] % 16 == 0;
  if (!panels || !aligned) return CUDA_ERROR_INVALID_VALUE;
  const Tensor tensor = {static_cast<uint16_t*>(data), size[0], size[1],
                         bytes[0] / sizeof(uint16_t)};
  static_assert(sizeof(tensor) <= sizeof(*map));
  std::memcpy(map, &tensor, sizeof(tensor));
  return CUDA_SUCCESS;
}

cudaError_t Launched(Grid grid) {
  return Enqueue(std::move(grid)) ? cudaSuccess : Failed(cudaErrorInvalidConfiguration);
}

}  // namespace gdn::emulator

using gdn::emulator::EnqueueOnHost;
using gdn::emulator::Failed;
using gdn::emulator::Finish;
using gdn::emulator::kPage;
using gdn::emulator::kPoisoned;
using gdn::emulator::mappings;
using gdn::emulator::memory;
using gdn::emulator::RoundUp;

struct CUgraph_st {
  std::vector<gdn::emulator::Grid> grids;
};
struct CUgraphExec_st {
  std::vector<gdn::emulator::Grid> grids;
};

extern "C" {

// What is read or written beyond its end ends the program; what nobody has written are NaNs.
cudaError_t cudaMalloc(void** place, size_t bytes) {
  if (!memory.Take()) return Failed(cudaErrorMemoryAllocation);
  const size_t used = RoundUp(bytes, 16);
  const size_t mapped = RoundUp(used, kPage) + kPage;
  auto* begin = static_cast<char*>(mmap(nullptr, mapped, PROT_READ | PROT_WRITE,
                                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  if (begin == MAP_FAILED) {
    --memory.held;
    return Failed(cudaErrorMemoryAllocation);
  }
  mprotect(begin + mapped - kPage, kPage, PROT_NONE);
  *place = begin + mapped - kPage - used;
  std::memset(*place, 0xff, std::min(used, kPoisoned));
  mappings[*place] = {begin, mapped};
  return cudaSuccess;
}

cudaError_t cudaFree(void* place) {
  const auto at = mappings.find(place);
  if (at == mappings.end()) return place == nullptr ? cudaSuccess : cudaErrorInvalidValue;
  const cudaError_t error = Finish();
  --memory.held;
  munmap(at->second.begin, at->second.bytes);
  mappings.erase(at);
  return error;
}

cudaError_t cudaMallocHost(void** place, size_t bytes) { return cudaMalloc(place, bytes); }
cudaError_t cudaFreeHost(void* place) { return cudaFree(place); }

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
  const cudaError_t error = Finish();
  if (error == cudaSuccess) std::memcpy(to, from, bytes);
  return error;
}

cudaError_t cudaMemset(void* to, int value, size_t bytes) {
  const cudaError_t error = Finish();
  if (error == cudaSuccess) std::memset(to, value, bytes);
  return error;
}

cudaError_t cudaMemset2D(void* to, size_t pitch, int value, size_t width, size_t height) {
  const cudaError_t error = Finish();
  if (error != cudaSuccess) return error;
  for (size_t i = 0; i < height; ++i) std::memset(static_cast<char*>(to) + i * pitch, value, width);
  return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor:
      *value = 9;
      return cudaSuccess;
    case cudaDevAttrMultiProcessorCount:
      *value = gdn::emulator::kProcessors;
      return cudaSuccess;
    default:
      return cudaErrorInvalidValue;
  }
}

cudaError_t cudaSetDevice(int) { return cudaSuccess; }

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind,
                            cudaStream_t) {
  EnqueueOnHost("cudaMemcpyAsync", [to, from, bytes] { std::memcpy(to, from, bytes); });
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t) {
  EnqueueOnHost("cudaMemsetAsync", [to, value, bytes] { std::memset(to, value, bytes); });
  return cudaSuccess;
}

// All streams are one, in the order in which work was handed in.
cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  *stream = nullptr;
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  return cudaStreamCreate(stream);
}
cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t) { return Finish(); }
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return cudaSuccess; }
cudaError_t cudaDeviceSynchronize() { return Finish(); }

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = nullptr;
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) { return cudaSuccess; }
cudaError_t cudaEventSynchronize(cudaEvent_t) { return Finish(); }

cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode) {
  gdn::emulator::BeginCapture();
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t* graph) {
  auto grids = gdn::emulator::EndCapture();
  if (std::exchange(gdn::emulator::capture_broken, false)) {
    return cudaErrorStreamCaptureInvalidated;
  }
  *graph = new CUgraph_st{std::move(grids)};
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* made, cudaGraph_t graph, unsigned long long) {
  *made = new CUgraphExec_st{graph->grids};
  return cudaSuccess;
}
cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) { return cudaSuccess; }
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t) {
  for (const gdn::emulator::Grid& grid : graph->grids) gdn::emulator::Enqueue(grid);
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) {
  delete graph;
  return cudaSuccess;
}

cudaError_t cudaHostRegister(void*, size_t, unsigned) { return cudaSuccess; }
cudaError_t cudaHostUnregister(void*) { return cudaSuccess; }
cudaError_t cudaHostGetDevicePointer(void** device, void* host, unsigned) {
  *device = host;
  return cudaSuccess;
}
cudaError_t cudaIpcOpenMemHandle(void**, cudaIpcMemHandle_t, unsigned) {
  return cudaErrorNotSupported;
}
cudaError_t cudaIpcCloseMemHandle(void*) { return cudaErrorNotSupported; }
cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** function, unsigned,
                                             unsigned long long,
                                             cudaDriverEntryPointQueryResult* result) {
  if (std::strcmp(name, "cuTensorMapEncodeTiled") != 0) return cudaErrorNotSupported;
  *function = reinterpret_cast<void*>(&gdn::emulator::EncodeTiled);
  *result = cudaDriverEntryPointSuccess;
  return cudaSuccess;
}

cudaError_t cudaGetLastError() { return std::exchange(gdn::emulator::last_error, cudaSuccess); }
cudaError_t cudaPeekAtLastError() { return gdn::emulator::last_error; }
const char* cudaGetErrorName(cudaError_t error) { return cudaGetErrorString(error); }
const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaSuccess ? "no error" : "an error of the emulated device";
}

}  // extern "C"
