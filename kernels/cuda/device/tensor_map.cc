#include "kernels/cuda/device/tensor_map.h"

namespace gdn::cuda {
namespace {

using Encode = decltype(&cuTensorMapEncodeTiled);

// The driver's, which is not linked; null where it has none.
Encode FindEncode() {
  constexpr unsigned kVersion = 12000;  // of CUDA, that has it
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result;
  const cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found,
                                                             kVersion, cudaEnableDefault, &result);
  const bool usable = error == cudaSuccess && result == cudaDriverEntryPointSuccess;
  return usable ? reinterpret_cast<Encode>(found) : nullptr;
}

}  // namespace

cudaError_t MapPanels(const void* data, int64_t columns, int64_t rows, int64_t stride,
                      TensorMap* map) {
  static const Encode encode = FindEncode();
  if (encode == nullptr) return cudaErrorNotSupported;
  const cuuint64_t size[] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows)};
  const cuuint64_t bytes[] = {static_cast<cuuint64_t>(stride) * sizeof(uint16_t)};
  const cuuint32_t box[] = {64, 64};
  const cuuint32_t steps[] = {1, 1};
  const CUresult result =
      encode(map, CU_TENSOR_MAP_DATA_TYPE_UINT16, 2, const_cast<void*>(data), size, bytes, box,
             steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

}  // namespace gdn::cuda
