#include "kernels/cuda/prefill/chunk_sm90.h"

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
constexpr size_t kStateBytes = size_t{kSm90Dim} * kSm90Dim * sizeof(float);
constexpr size_t kMapBytes = size_t{kSm90Dim} * kMapStride * sizeof(float);

// Where the parts of the workspace lie, the largest first; `bytes` becomes their size.
ChunkWorkspace LayOut(const Heads& heads, int64_t chunks, void* workspace, size_t* bytes) {
  *bytes = 0;
  const auto take = [&](int64_t records, size_t size) {
    void* taken = static_cast<unsigned char*>(workspace) + *bytes;
    *bytes += static_cast<size_t>(records) * size;
    return taken;
  };
  const int64_t value_records = chunks * heads.value_heads;
  ChunkWorkspace w;
  w.x = take(value_records, kRecordBytes);
  w.p = take(value_records, kRecordBytes / 2);
  w.factors = static_cast<ChunkFactors*>(take(value_records, sizeof(ChunkFactors)));
  const int64_t segments =
      kLeastSegments * heads.value_heads > kMaxSegmentHeads || chunks < kLeastSegments
          ? 0
          : kMaxSegmentHeads;
  w.starts = static_cast<float*>(take(segments, kStateBytes));
  w.maps = static_cast<float*>(take(segments, kMapBytes));
  w.ready = static_cast<unsigned*>(take(value_records, sizeof(unsigned)));
  w.taken = static_cast<unsigned*>(take(heads.value_heads, sizeof(unsigned)));
  return w;
}

}  // namespace

bool ChunkSm90Takes(const ChunkGatedDeltaRuleParams& p) {
  const bool shape = p.heads.key_dim == kSm90Dim && p.heads.value_dim == kSm90Dim;
  const bool io = p.io == DType::kBf16 || p.io == DType::kFp16;
  const bool out = p.o_type == p.io || p.o_type == DType::kFp32;
  const bool state = p.ssm.type != DType::kFp16 && Aligned(p.ssm.slot_stride, p.ssm.type);
  return shape && io && p.qk_l2norm && out && state && Aligned(p.q_stride, p.io) &&
         Aligned(p.k_stride, p.io) && Aligned(p.v_stride, p.io) && Aligned(p.o_stride, p.o_type);
}

bool ChunkSm90PointersAligned(const ChunkGatedDeltaRuleParams& p) {
  return Aligned(p.q) && Aligned(p.k) && Aligned(p.v) && Aligned(p.o) && Aligned(p.ssm.data);
}

size_t ChunkSm90WorkspaceBytes(const Heads& heads, int64_t chunks) {
  size_t bytes;
  LayOut(heads, chunks, nullptr, &bytes);
  return bytes;
}

ChunkWorkspace ChunkSm90Workspace(const Heads& heads, int64_t chunks, void* workspace) {
  size_t bytes;
  return LayOut(heads, chunks, workspace, &bytes);
}

}  // namespace gdn::cuda
