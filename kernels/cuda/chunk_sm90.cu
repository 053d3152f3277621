#include "kernels/cuda/chunk_sm90.h"

namespace gdn::cuda {
namespace {

bool Aligned(int64_t stride, DType type) {
  return stride * static_cast<int64_t>(SizeOf(type)) % kChunkSm90Alignment == 0;
}

bool Aligned(const void* data) {
  return reinterpret_cast<uintptr_t>(data) % kChunkSm90Alignment == 0;
}

// Bytes of 64 x 128 elements.
constexpr size_t kRecordBytes = size_t{kChunk} * kSm90Dim * 2;

}  // namespace

bool ChunkSm90Takes(const ChunkGatedDeltaRuleParams& p) {
  const bool shape = p.heads.key_dim == kSm90Dim && p.heads.value_dim == kSm90Dim;
  const bool io = p.io == DType::kBf16 || (p.io == DType::kFp16 && p.qk_l2norm);
  const bool out = p.o_type == p.io || p.o_type == DType::kFp32;
  const bool state = p.ssm.type != DType::kFp16 && Aligned(p.ssm.slot_stride, p.ssm.type);
  return shape && io && out && state && Aligned(p.q_stride, p.io) && Aligned(p.k_stride, p.io) &&
         Aligned(p.v_stride, p.io) && Aligned(p.o_stride, p.o_type);
}

bool ChunkSm90PointersAligned(const ChunkGatedDeltaRuleParams& p) {
  return Aligned(p.q) && Aligned(p.k) && Aligned(p.v) && Aligned(p.o) && Aligned(p.ssm.data);
}

size_t ChunkSm90WorkspaceBytes(const Heads& heads, int64_t chunks) {
  const size_t value_records = static_cast<size_t>(chunks) * heads.value_heads;
  const size_t key_records = static_cast<size_t>(chunks) * heads.key_heads;
  return value_records * (4 * kRecordBytes + sizeof(ChunkGates)) + key_records * kRecordBytes;
}

ChunkWorkspace ChunkSm90Workspace(const Heads& heads, int64_t chunks, void* workspace) {
  auto* next = static_cast<unsigned char*>(workspace);
  const auto take = [&](size_t bytes) {
    void* taken = next;
    next += bytes;
    return taken;
  };
  const size_t value_records = static_cast<size_t>(chunks) * heads.value_heads;
  ChunkWorkspace w;
  w.w = take(value_records * kRecordBytes);
  w.u = take(value_records * kRecordBytes);
  w.h = take(value_records * 2 * kRecordBytes);
  w.k = take(static_cast<size_t>(chunks) * heads.key_heads * kRecordBytes);
  w.gates = static_cast<ChunkGates*>(take(value_records * sizeof(ChunkGates)));
  return w;
}

}  // namespace gdn::cuda
