#include "kernels/cuda/backend/projection.h"

#include <utility>

#include "absl/status/status.h"
#include "kernels/cuda/ops/projection_of_few.h"

namespace gdn::cuda {
namespace {

constexpr size_t kWorkspaceBytes = size_t{32} << 20;  // as NVIDIA advises for Hopper

cudaDataType_t TypeOf(DType type) {
  switch (type) {
    case DType::kBf16:
      return CUDA_R_16BF;
    case DType::kFp16:
      return CUDA_R_16F;
    case DType::kFp32:
      break;
  }
  return CUDA_R_32F;
}

cudaError_t ErrorOf(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS:
      return cudaSuccess;
    case CUBLAS_STATUS_ALLOC_FAILED:
      return cudaErrorMemoryAllocation;
    case CUBLAS_STATUS_INVALID_VALUE:
    case CUBLAS_STATUS_NOT_SUPPORTED:
      return cudaErrorInvalidValue;
    default:
      return cudaErrorUnknown;
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<Projection>> Projection::Make(DType io, int64_t in, int64_t out) {
  absl::StatusOr<Memory> workspace = Memory::Make(Memory::Place::kDevice, kWorkspaceBytes);
  if (!workspace.ok()) return workspace.status();
  std::unique_ptr<Projection> made(new Projection);
  made->workspace_ = *std::move(workspace);
  made->type_ = TypeOf(io);
  // Column by column, as cuBLAS has it: yᵀ [out, tokens] = (wᵀ [in, out])ᵀ · xᵀ [in, tokens].
  const cublasOperation_t transposed = CUBLAS_OP_T;
  const bool ok =
      cublasLtCreate(&made->handle_) == CUBLAS_STATUS_SUCCESS &&
      cublasLtMatmulDescCreate(&made->product_, CUBLAS_COMPUTE_32F, CUDA_R_32F) ==
          CUBLAS_STATUS_SUCCESS &&
      cublasLtMatmulDescSetAttribute(made->product_, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                     sizeof transposed) == CUBLAS_STATUS_SUCCESS &&
      cublasLtMatrixLayoutCreate(&made->w_, made->type_, in, out, in) == CUBLAS_STATUS_SUCCESS &&
      cublasLtMatmulPreferenceCreate(&made->preference_) == CUBLAS_STATUS_SUCCESS &&
      cublasLtMatmulPreferenceSetAttribute(
          made->preference_, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &kWorkspaceBytes,
          sizeof kWorkspaceBytes) == CUBLAS_STATUS_SUCCESS;
  if (!ok) return absl::FailedPreconditionError("cuBLASLt could not be set up");
  return made;
}

Projection::~Projection() {
  if (preference_ != nullptr) cublasLtMatmulPreferenceDestroy(preference_);
  if (w_ != nullptr) cublasLtMatrixLayoutDestroy(w_);
  if (product_ != nullptr) cublasLtMatmulDescDestroy(product_);
  if (handle_ != nullptr) cublasLtDestroy(handle_);
}

struct Projection::Layouts {
  Layouts(const ProjectionParams& p, cudaDataType_t type) {
    const auto tokens = static_cast<uint64_t>(p.tokens);
    status = cublasLtMatrixLayoutCreate(&x, type, static_cast<uint64_t>(p.in), tokens, p.x_stride);
    if (status != CUBLAS_STATUS_SUCCESS) return;
    status = cublasLtMatrixLayoutCreate(&y, type, static_cast<uint64_t>(p.out), tokens, p.y_stride);
  }
  Layouts(const Layouts&) = delete;
  Layouts& operator=(const Layouts&) = delete;
  ~Layouts() {
    if (y != nullptr) cublasLtMatrixLayoutDestroy(y);
    if (x != nullptr) cublasLtMatrixLayoutDestroy(x);
  }

  cublasLtMatrixLayout_t x = nullptr;
  cublasLtMatrixLayout_t y = nullptr;
  cublasStatus_t status;
};

// What cuBLASLt puts first.
cudaError_t Projection::Choose(int64_t tokens, const Layouts& layouts,
                               cublasLtMatmulAlgo_t* algorithm) {
  if (const auto known = algorithms_.find(tokens); known != algorithms_.end()) {
    *algorithm = known->second;
    return cudaSuccess;
  }
  cublasLtMatmulHeuristicResult_t first;
  int found = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
      handle_, product_, w_, layouts.x, layouts.y, layouts.y, preference_, 1, &first, &found);
  if (status != CUBLAS_STATUS_SUCCESS) return ErrorOf(status);
  if (found == 0) return cudaErrorInvalidValue;
  *algorithm = first.algo;
  algorithms_.emplace(tokens, first.algo);
  return cudaSuccess;
}

cudaError_t Projection::Run(const ProjectionParams& p, cudaStream_t stream) {
  if (p.tokens == 0) return cudaSuccess;
  if (ProjectionOfFewTakes(p)) return ProjectionOfFew(p, stream);
  const Layouts layouts(p, type_);
  if (layouts.status != CUBLAS_STATUS_SUCCESS) return ErrorOf(layouts.status);
  cublasLtMatmulAlgo_t algorithm;
  if (const cudaError_t error = Choose(p.tokens, layouts, &algorithm); error != cudaSuccess) {
    return error;
  }
  const float one = 1.0f;
  const float zero = 0.0f;
  return ErrorOf(cublasLtMatmul(handle_, product_, &one, p.w, w_, p.x, layouts.x, &zero, p.y,
                                layouts.y, p.y, layouts.y, &algorithm, workspace_.data(),
                                workspace_.size(), stream));
}

bool Projection::WaitsFirst(const ProjectionParams& p) { return ProjectionOfFewTakes(p); }

cudaError_t Projection::RunAndFinish(const ProjectionParams& p, const FinishRowsParams& finish,
                                     cudaStream_t stream) {
  if (finish.rows.offsets == nullptr && ProjectionOfFewTakes(p)) {
    return ProjectionOfFew(p, finish, stream);
  }
  const cudaError_t error = Run(p, stream);
  return error == cudaSuccess ? FinishRows(finish, stream) : error;
}

}  // namespace gdn::cuda
