// Products with a layer's matrices, by cuBLASLt.
#pragma once

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>
#include <unordered_map>

#include "absl/status/statusor.h"
#include "kernels/cuda/backend/memory.h"
#include "kernels/cuda/ops/step_rows.h"
#include "kernels/ops/projection.h"

namespace gdn::cuda {

// y = x · wᵀ for matrices of one shape [out, in] and any number of tokens, accumulated in fp32. One
// thread, one stream at a time.
class Projection {
 public:
  static absl::StatusOr<std::unique_ptr<Projection>> Make(DType io, int64_t in, int64_t out);
  Projection(const Projection&) = delete;
  Projection& operator=(const Projection&) = delete;
  ~Projection();

  // Pointers of `p` are device pointers; its shape and type are those of this. Fit for capture into
  // a graph. Few tokens go through a kernel of our own, which streams the weights.
  cudaError_t Run(const ProjectionParams& p, cudaStream_t stream);

  // Whether a kernel that depends on Run's begins only when what precedes Run's has ended. Those of
  // cuBLASLt may let it begin before they wait for anything.
  static bool WaitsFirst(const ProjectionParams& p);

  // The same, and FinishRows of its output, in one kernel where there are few tokens.
  cudaError_t RunAndFinish(const ProjectionParams& p, const FinishRowsParams& finish,
                           cudaStream_t stream);

 private:
  struct Layouts;  // of x and y, for a number of tokens

  Projection() = default;
  cudaError_t Choose(int64_t tokens, const Layouts& layouts, cublasLtMatmulAlgo_t* algorithm);

  cudaDataType_t type_ = CUDA_R_32F;
  cublasLtHandle_t handle_ = nullptr;
  cublasLtMatmulDesc_t product_ = nullptr;
  cublasLtMatrixLayout_t w_ = nullptr;
  cublasLtMatmulPreference_t preference_ = nullptr;
  Memory workspace_;
  std::unordered_map<int64_t, cublasLtMatmulAlgo_t> algorithms_;  // by tokens
};

}  // namespace gdn::cuda
