#include "kernels/cuda/chunk_fused_sm90.h"

namespace gdn::cuda {
namespace {

// Bytes of 64 x 128 elements.
constexpr size_t kRecordBytes = size_t{kChunk} * kFusedDim * 2;

// Where the parts of the workspace lie, the largest first; `bytes` becomes their size.
FusedWorkspace LayOut(const Heads& heads, int64_t chunks, void* workspace, size_t* bytes) {
  *bytes = 0;
  const auto take = [&](int64_t records, size_t size) {
    void* taken = static_cast<unsigned char*>(workspace) + *bytes;
    *bytes += static_cast<size_t>(records) * size;
    return taken;
  };
  const int64_t value_records = chunks * heads.value_heads;
  const int64_t key_records = chunks * heads.key_heads;
  FusedWorkspace w;
  w.x = take(value_records, kRecordBytes);
  w.p = take(value_records, kRecordBytes / 2);
  w.k = take(key_records, kRecordBytes);
  w.q = take(key_records, kRecordBytes);
  w.factors = static_cast<ChunkFactors*>(take(value_records, sizeof(ChunkFactors)));
  w.ready = static_cast<unsigned*>(take(value_records, sizeof(unsigned)));
  return w;
}

}  // namespace

size_t ChunkFusedWorkspaceBytes(const Heads& heads, int64_t chunks) {
  size_t bytes;
  LayOut(heads, chunks, nullptr, &bytes);
  return bytes;
}

FusedWorkspace ChunkFusedWorkspace(const Heads& heads, int64_t chunks, void* workspace) {
  size_t bytes;
  return LayOut(heads, chunks, workspace, &bytes);
}

}  // namespace gdn::cuda
