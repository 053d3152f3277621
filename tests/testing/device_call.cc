#include "tests/testing/device_call.h"

#include <algorithm>
#include <cstring>

namespace gdn::test {
namespace {

constexpr int kPoison = 0xff;                     // a NaN in every element type
constexpr size_t kCheckedPool = size_t{1} << 27;  // bytes of a pool that is looked at in full

void Check(cudaError_t error, const char* what) {
  EXPECT_EQ(error, cudaSuccess) << what << ": " << cudaGetErrorString(error);
}

size_t Bytes(DType type, const Extent& e) {
  return e.tokens == 0 ? 0 : ((e.tokens - 1) * e.stride + e.width) * SizeOf(type);
}

}  // namespace

const char* DeviceCall::Unavailable() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) return cudaGetErrorString(error);
  if (count == 0) return "no CUDA device";
  int major = 0;
  Check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0), "attribute");
  return major == 9 ? nullptr : "the CUDA device is not of the Hopper generation";
}

DeviceCall::~DeviceCall() {
  for (std::byte* device : allocations_) Check(cudaFree(device), "cudaFree");
}

std::byte* DeviceCall::Allocate(size_t bytes) {
  void* device = nullptr;
  Check(cudaMalloc(&device, std::max<size_t>(bytes, 1)), "cudaMalloc");
  allocations_.push_back(static_cast<std::byte*>(device));
  return allocations_.back();
}

DeviceCall::Buffer* DeviceCall::Find(const void* host, size_t bytes) {
  for (Buffer& b : buffers_) {
    if (b.host == host && b.bytes >= bytes) return &b;
  }
  return nullptr;
}

DeviceCall::Buffer* DeviceCall::Upload(const void* host, size_t bytes) {
  auto* begin = static_cast<std::byte*>(const_cast<void*>(host));
  buffers_.push_back({begin, bytes, Allocate(bytes), false});
  Check(cudaMemcpy(buffers_.back().device, host, bytes, cudaMemcpyHostToDevice), "upload");
  return &buffers_.back();
}

void DeviceCall::In(const void*& pointer, DType type, const Extent& extent) {
  if (pointer == nullptr) return;
  const size_t bytes = Bytes(type, extent);
  const Buffer* known = Find(pointer, bytes);
  pointer = known != nullptr ? known->device : Upload(pointer, bytes)->device;
}

void DeviceCall::In(const float*& pointer, const Extent& extent) {
  const void* untyped = pointer;
  In(untyped, DType::kFp32, extent);
  pointer = static_cast<const float*>(untyped);
}

void DeviceCall::InOut(void*& pointer, DType type, const Extent& extent) {
  const size_t bytes = Bytes(type, extent);
  Buffer* buffer = Find(pointer, bytes);
  if (buffer == nullptr) buffer = Upload(pointer, bytes);
  buffer->download = true;
  pointer = buffer->device;
}

void DeviceCall::Out(void*& pointer, DType type, const Extent& extent) {
  const bool in_place = Find(pointer, Bytes(type, extent)) != nullptr;
  InOut(pointer, type, extent);
  if (in_place || extent.tokens == 0) return;
  const size_t size = SizeOf(type);
  Check(cudaMemset2D(pointer, extent.stride * size, kPoison, extent.width * size, extent.tokens),
        "poison");
}

void DeviceCall::Out(float*& pointer, const Extent& extent) {
  void* untyped = pointer;
  Out(untyped, DType::kFp32, extent);
  pointer = static_cast<float*>(untyped);
}

void DeviceCall::In(const int64_t*& pointer, int64_t count) {
  pointer = reinterpret_cast<const int64_t*>(Upload(pointer, count * sizeof(int64_t))->device);
}

void DeviceCall::Out(int64_t*& pointer, int64_t count) {
  if (pointer == nullptr) return;
  Buffer* buffer = Upload(pointer, count * sizeof(int64_t));
  Check(cudaMemset(buffer->device, kPoison, buffer->bytes), "poison");
  buffer->download = true;
  pointer = reinterpret_cast<int64_t*>(buffer->device);
}

void DeviceCall::Bind(Rows& rows) {
  const auto upload = [this](auto*& pointer, int64_t count) {
    if (pointer == nullptr) return;
    pointer = reinterpret_cast<std::decay_t<decltype(pointer)>>(
        Upload(pointer, count * sizeof(*pointer))->device);
  };
  upload(rows.offsets, rows.count + 1);
  upload(rows.slots, rows.count);
  upload(rows.has_initial_state, rows.count);
}

void DeviceCall::Bind(StatePool& pool, const Rows& host, int64_t size) {
  if (pool.data == nullptr) return;
  int64_t slots = 0;
  for (int64_t row = 0; row < host.count; ++row) slots = std::max(slots, host.slot(row) + 1);
  const size_t slot_bytes = pool.slot_stride * SizeOf(pool.type);
  Pool p = {pool,
            nullptr,
            (slots + 2) * slot_bytes,
            std::vector<bool>(slots),
            slot_bytes,
            size * SizeOf(pool.type)};
  p.device = Allocate(p.bytes);
  Check(cudaMemset(p.device, kPoison, p.bytes), "poison");
  pool.data = p.device + slot_bytes;
  for (int64_t row = 0; row < host.count; ++row) {
    const int64_t slot = host.slot(row);
    if (slot < 0) continue;
    p.owned[slot] = true;
    Check(cudaMemcpy(static_cast<std::byte*>(pool.data) + slot * slot_bytes,
                     static_cast<const std::byte*>(p.host.data) + slot * slot_bytes, p.used_bytes,
                     cudaMemcpyHostToDevice),
          "upload");
  }
  pools_.push_back(p);
}

Chunks DeviceCall::ChunksOf(const Rows& host) {
  const ChunkIndex index({host.offsets, static_cast<size_t>(host.count) + 1});
  Chunks chunks = index.chunks();
  In(chunks.chunk_offsets, host.count + 1);
  In(chunks.chunk_indices, 2 * chunks.count);
  In(chunks.longest_first, 2 * host.count);
  return chunks;
}

void* DeviceCall::Scratch(size_t bytes) {
  std::byte* device = Allocate(bytes);
  Check(cudaMemset(device, kPoison, bytes), "poison");
  return device;
}

void DeviceCall::DownloadPool(const Pool& pool) {
  std::vector<std::byte> slot(pool.slot_bytes);
  const bool checked = pool.bytes <= kCheckedPool;
  for (int64_t s = -1; s <= static_cast<int64_t>(pool.owned.size()); ++s) {
    const bool owned = s >= 0 && s < static_cast<int64_t>(pool.owned.size()) && pool.owned[s];
    if (!owned && !checked) continue;
    Check(cudaMemcpy(slot.data(), pool.device + (s + 1) * pool.slot_bytes, pool.slot_bytes,
                     cudaMemcpyDeviceToHost),
          "download");
    const auto untouched = owned ? slot.begin() + pool.used_bytes : slot.begin();
    EXPECT_TRUE(
        std::all_of(untouched, slot.end(), [](std::byte b) { return b == std::byte(kPoison); }))
        << "written outside the states of the rows, in slot " << s;
    if (!owned) continue;
    std::memcpy(static_cast<std::byte*>(pool.host.data) + s * pool.slot_bytes, slot.data(),
                pool.used_bytes);
  }
}

void DeviceCall::Run(const std::function<cudaError_t(cudaStream_t)>& launch) {
  cudaStream_t stream = nullptr;
  Check(cudaDeviceSynchronize(), "before the launch");
  Check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
  Check(launch(stream), "launch");
  Check(cudaStreamSynchronize(stream), "kernel");
  Check(cudaStreamDestroy(stream), "cudaStreamDestroy");
  for (const Buffer& b : buffers_) {
    if (b.download)
      Check(cudaMemcpy(b.host, b.device, b.bytes, cudaMemcpyDeviceToHost), "download");
  }
  for (const Pool& pool : pools_) DownloadPool(pool);
}

}  // namespace gdn::test
