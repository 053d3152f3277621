// What the projections call of cuBLASLt: products in fp32, enqueued as kernels of which one thread
// computes. Like the library's they may begin early, and let what follows begin before they wait.
#include <cublasLt.h>

#include <cstdint>
#include <utility>

#include "tests/emulator/machine.h"
#include "tests/emulator/matrix.h"
#include "tests/emulator/runtime.h"

namespace gdn::emulator {

Resources cublas_lt;

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

// What cuBLASLt makes and is handed back, of which layouts alone have to be known.
template <typename Opaque, typename T>
cublasStatus_t Make(Opaque** made, T content) {
  if (!cublas_lt.Take()) return CUBLAS_STATUS_ALLOC_FAILED;
  *made = reinterpret_cast<Opaque*>(new T(content));
  return CUBLAS_STATUS_SUCCESS;
}

template <typename T, typename Opaque>
cublasStatus_t Destroy(Opaque* made) {
  --cublas_lt.held;
  delete reinterpret_cast<T*>(made);
  return CUBLAS_STATUS_SUCCESS;
}

struct Empty {};

const Layout& Of(cublasLtMatrixLayout_t layout) { return *reinterpret_cast<Layout*>(layout); }

}  // namespace
}  // namespace gdn::emulator

using gdn::emulator::Destroy;
using gdn::emulator::Empty;
using gdn::emulator::Layout;
using gdn::emulator::Make;
using gdn::emulator::Of;

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) { return Make(handle, Empty{}); }
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) { return Destroy<Empty>(handle); }

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* made, cublasComputeType_t,
                                        cudaDataType_t) {
  return Make(made, Empty{});
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t made) { return Destroy<Empty>(made); }
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t, cublasLtMatmulDescAttributes_t,
                                              const void*, size_t) {
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* made, cudaDataType type,
                                          uint64_t rows, uint64_t columns, int64_t stride) {
  return Make(made, Layout{type, rows, columns, stride});
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t made) {
  return Destroy<Layout>(made);
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* made) {
  return Make(made, Empty{});
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t made) {
  return Destroy<Empty>(made);
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
  grid.block = {32};
  grid.dependent = true;
  grid.kernel = [w, x, y, of_w = Of(of_w), of_x = Of(of_x), of_y = Of(of_y)] {
    gdn::emulator::LetNextGridBegin();
    if (gdn::emulator::self->number > 0) return;
    gdn::emulator::WaitForGridsBefore();
    gdn::emulator::Multiply(w, of_w, x, of_x, y, of_y);
  };
  gdn::emulator::Launched(std::move(grid));
  return CUBLAS_STATUS_SUCCESS;
}

}  // extern "C"
