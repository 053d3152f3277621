// What the projections call of cuBLASLt: products in fp32, enqueued as kernels of one thread.
#include <cublasLt.h>

#include "tests/emulator/machine.h"
#include "tests/emulator/matrix.h"

namespace gdn::emulator {
namespace {

// cublasLtMatrixLayout_t: a matrix column by column.
struct Layout {
  cudaDataType_t type;
  uint64_t rows;
  uint64_t columns;
  int64_t stride;
};

float Load(const void* data, cudaDataType_t type, int64_t at) {
  switch (type) {
    case CUDA_R_16BF:
      return Value<__nv_bfloat16>(static_cast<const uint16_t*>(data)[at]);
    case CUDA_R_16F:
      return Value<__half>(static_cast<const uint16_t*>(data)[at]);
    default:
      return static_cast<const float*>(data)[at];
  }
}

void Store(void* data, cudaDataType_t type, int64_t at, float x) {
  switch (type) {
    case CUDA_R_16BF:
      static_cast<uint16_t*>(data)[at] = Bits<__nv_bfloat16>(x);
      break;
    case CUDA_R_16F:
      static_cast<uint16_t*>(data)[at] = Bits<__half>(x);
      break;
    default:
      static_cast<float*>(data)[at] = x;
  }
}

// y = wᵀ · x
void Multiply(const void* w, const Layout& of_w, const void* x, const Layout& of_x, void* y,
              const Layout& of_y) {
  for (uint64_t column = 0; column < of_y.columns; ++column) {
    for (uint64_t row = 0; row < of_y.rows; ++row) {
      float sum = 0.0f;
      for (uint64_t k = 0; k < of_w.rows; ++k) {
        sum += Load(w, of_w.type, static_cast<int64_t>(row) * of_w.stride + k) *
               Load(x, of_x.type, static_cast<int64_t>(column) * of_x.stride + k);
      }
      Store(y, of_y.type, static_cast<int64_t>(column) * of_y.stride + row, sum);
    }
  }
}

template <typename To, typename From>
To* As(From* from) {
  return reinterpret_cast<To*>(from);
}

}  // namespace
}  // namespace gdn::emulator

using gdn::emulator::As;
using gdn::emulator::Layout;

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  *handle = nullptr;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t) { return CUBLAS_STATUS_SUCCESS; }

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* made, cublasComputeType_t,
                                        cudaDataType_t) {
  *made = nullptr;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t) { return CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t, cublasLtMatmulDescAttributes_t,
                                              const void*, size_t) {
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* made, cudaDataType type,
                                          uint64_t rows, uint64_t columns, int64_t stride) {
  *made = As<cublasLtMatrixLayoutOpaque_t>(new Layout{type, rows, columns, stride});
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  delete As<Layout>(layout);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* made) {
  *made = nullptr;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t) {
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t,
                                                    cublasLtMatmulPreferenceAttributes_t,
                                                    const void*, size_t) {
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t,
                                              cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                                              cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                                              cublasLtMatmulPreference_t, int,
                                              cublasLtMatmulHeuristicResult_t results[],
                                              int* found) {
  results[0] = {};
  *found = 1;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t, const void*, const void* w,
                              cublasLtMatrixLayout_t of_w, const void* x,
                              cublasLtMatrixLayout_t of_x, const void*, const void*,
                              cublasLtMatrixLayout_t, void* y, cublasLtMatrixLayout_t of_y,
                              const cublasLtMatmulAlgo_t*, void*, size_t, cudaStream_t) {
  gdn::emulator::Grid grid;
  grid.name = "cublasLtMatmul";
  grid.kernel = [w, x, y, of_w = *As<Layout>(of_w), of_x = *As<Layout>(of_x),
                 of_y = *As<Layout>(of_y)] { gdn::emulator::Multiply(w, of_w, x, of_x, y, of_y); };
  gdn::emulator::Enqueue(std::move(grid));
  return CUBLAS_STATUS_SUCCESS;
}

}  // extern "C"
