#include "kernels/cuda/decode/gdn_decode_kernels.h"
#include "kernels/cuda/ops/fused_gdn_decode.h"

namespace gdn::cuda {
namespace {

// From here on the states are worth a ring of their own, whose shared memory keeps the kernel from
// beginning beside the one before.
constexpr int64_t kStreamRows = 9;

bool Aligned(const void* data, int64_t stride) {
  return reinterpret_cast<uintptr_t>(data) % 16 == 0 && stride % 8 == 0;
}

}  // namespace

bool FusedGdnDecodeTakes(const FusedGdnDecodeParams& p) {
  const int group = p.heads.value_heads / p.heads.key_heads;
  return p.heads.key_dim == 128 && p.heads.value_dim == 128 && p.conv_width == 4 &&
         (group <= 4 || group == 8) && p.io != DType::kFp32 && p.ssm.type != DType::kFp16 &&
         p.rows.count <= 65535 && Aligned(p.mixed_qkv, p.mixed_stride) &&
         Aligned(p.z, p.z_stride) && Aligned(p.o, p.o_stride) && p.ssm.data != nullptr &&
         p.ssm.slot_stride % 8 == 0 && p.conv.data != nullptr && p.conv.slot_stride % 8 == 0 &&
         p.heads.key_heads < 256;
}

cudaError_t FusedGdnDecode(const FusedGdnDecodeParams& p, cudaStream_t stream) {
  if (p.rows.count == 0) return cudaSuccess;
  if (!FusedGdnDecodeTakes(p)) return cudaErrorInvalidValue;
  const bool single = p.rows.offsets == nullptr;
  return single && p.rows.count >= kStreamRows ? decode::LaunchStream(p, stream)
                                               : decode::LaunchCluster(p, stream);
}

}  // namespace gdn::cuda
